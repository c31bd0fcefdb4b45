"""Features and latents of captioned pictures, computed once and kept in shards."""
