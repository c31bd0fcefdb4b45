"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excite, ReLU6): a small ImageNet network for features."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_eval.images.weights import WeightFile, load_weights

EFFICIENTNET_LITE0_FILE = WeightFile("efficientnet-lite0-57934424.pth", "57934424", 4 * 4_652_008)

STAGES = (
    # blocks  kernel  stride  expansion  width
    (      1,      3,      1,         1,    16),
    (      2,      3,      2,         6,    24),
    (      2,      5,      2,         6,    40),
    (      3,      3,      2,         6,    80),
    (      3,      5,      1,         6,   112),
    (      4,      5,      2,         6,   192),
    (      1,      3,      1,         6,   320),
)  # fmt: skip


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding: what is left over goes to the right and to the bottom."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        pads = []
        for length, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads = [missing // 2, missing - missing // 2, *pads]  # F.pad wants the last axis first
        return super().forward(F.pad(x, pads))


def same_conv(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv:
    """Without bias, since normalisation follows."""
    return SameConv(c_in, c_out, kernel, stride, groups=groups, bias=False)


def norm(c: int) -> nn.BatchNorm2d:
    """With TensorFlow's epsilon."""
    return nn.BatchNorm2d(c, eps=1e-3)


class InvertedBottleneck(nn.Module):
    """Widen by 1 x 1, filter each channel, narrow by 1 x 1; added to its input where shapes allow."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = c_in * expansion
        if expansion > 1:
            self._expand_conv = same_conv(c_in, inner, 1)
            self._bn0 = norm(inner)
        self._depthwise_conv = same_conv(inner, inner, kernel, stride, groups=inner)
        self._bn1 = norm(inner)
        self._project_conv = same_conv(inner, c_out, 1)
        self._bn2 = norm(c_out)
        self.widens = expansion > 1
        self.adds = c_in == c_out and stride == 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """(b, 3, h, w) with the mean and deviation of ImageNet to (b, 1280). 296 tensors; names as in the public file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = same_conv(3, 32, 3, 2)
        self._bn0 = norm(32)
        blocks, c = [], 32
        for repeats, kernel, stride, expansion, width in STAGES:
            for i in range(repeats):
                blocks.append(InvertedBottleneck(c, width, kernel, stride if i == 0 else 1, expansion))
                c = width
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = same_conv(c, 1280, 1)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        """Pooled features; the classifier `_fc` is loaded for completeness and not used."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def load_efficientnet_lite0(
    path: str | Path, expected: WeightFile = EFFICIENTNET_LITE0_FILE
) -> tuple[EfficientNetLite0, str]:
    """The network with the weights of a file, in eval mode, and the file's sha256.

    Raises ValueError for a truncated or other file, and unless its tensors are all the network has and no more.
    """
    with torch.device("meta"):
        network = EfficientNetLite0()
    state, sha256 = load_weights(path, expected)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no state dict of EfficientNet-Lite0: {error}") from error
    return network.eval().requires_grad_(False), sha256
