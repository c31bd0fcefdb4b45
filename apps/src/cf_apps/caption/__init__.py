"""Image to text: a picture's latent flows to the latent of a caption, and a frozen decoder reads that out."""
