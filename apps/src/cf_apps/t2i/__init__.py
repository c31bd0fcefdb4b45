"""Text to image: a caption's latent flows straight into a picture's (CrossFlow section 4.4)."""
