"""Frozen language models behind the Protocol of `language.py`, each in a room of its own."""
