"""Image codecs behind the Protocol of `codec.py`, each in a room of its own."""
