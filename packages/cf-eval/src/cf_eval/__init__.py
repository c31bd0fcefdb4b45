"""Generative-model metrics that name their protocol."""
