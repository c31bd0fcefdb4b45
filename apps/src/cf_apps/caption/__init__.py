"""Image to text: a picture's latent flows to the latent of a caption, and a decoder reads that out."""
