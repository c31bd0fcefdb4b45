"""The engine: a training loop that never asks which task it runs, and what such a loop needs."""
