"""Shards: what a language model and a codec make of captioned images, computed once and read while training."""
