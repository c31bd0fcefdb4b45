"""Variational encoders, contrastive losses, language-model and image-codec adapters: every modality into x_0 and back."""
