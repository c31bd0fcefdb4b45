"""Metrics of images: what is fed to which network, and what is made of its features."""
