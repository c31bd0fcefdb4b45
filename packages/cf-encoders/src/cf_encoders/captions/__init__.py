"""Captions through a latent and back: subwords, decoders, and the autoencoder they form."""
