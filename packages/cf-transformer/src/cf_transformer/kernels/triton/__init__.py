"""The kernels themselves: @triton.jit functions that import nothing but triton."""
