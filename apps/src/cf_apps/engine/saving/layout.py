"""What a checkpoint's folder holds, by name."""

from collections.abc import Mapping

from torch import Tensor

MARKER = "complete.json"  # written last: size and SHA-256 of every other file
STATE = "state.json"  # the numbers of the training state
Parts = Mapping[str, Mapping[str, Tensor]]  # name of the file -> name of the tensor -> the tensor
