"""Captioned images as streams, so that a set of any size is read one pair after another: files, tars, tables, hub."""
