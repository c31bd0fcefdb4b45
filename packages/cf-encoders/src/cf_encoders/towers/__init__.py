"""The image side of the contrastive loss: pictures or latents -> a target of z_0's size."""
