"""Captioned images, from wherever they come: a procedural world, a bundled set, or the user's own folder."""
