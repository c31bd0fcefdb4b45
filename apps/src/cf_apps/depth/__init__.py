"""Picture to depth: the latent of a picture flows straight into its depth map (CrossFlow section 5.3)."""
