"""Super-resolution: the enlarged low-resolution picture flows straight into the sharp one (CrossFlow section 5.3)."""
