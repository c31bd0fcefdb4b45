"""The network behind every FID: Inception v3 as of 2015-12-05, with the names of its PyTorch state dict.

It differs from torchvision's Inception v3 (Szegedy et al. 2015) where the TensorFlow graph does: averages do not
count their padding, the last block pools by the maximum, and there are 1008 logits.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cf_eval.images.weights import WeightFile, load_weights
from cf_eval.result import FID_INCEPTION

INCEPTION_FILE = WeightFile("pt_inception-2015-12-05-6726825d.pth", FID_INCEPTION, 4 * 23_850_960)
SIZE = 299
# how wide the features are at each place they may be taken from, in the order they are reached
TAPS = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits_unbiased": 1008, "logits": 1008}

Kernel = int | tuple[int, int]
# (name, width, kernel) and, where it halves the resolution, stride 2 without padding
Layer = tuple[str, int, Kernel] | tuple[str, int, Kernel, int]
# layers one after the other; a list of layers in a chain's last place reads side by side what came before it
Chain = Sequence[Layer | list[Layer]]


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch normalisation with the statistics of training, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else 0
        self.conv = nn.Conv2d(c_in, c_out, sides, stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        return F.relu(self.bn(self.conv(x)), inplace=True)

    def fuse(self) -> None:
        """Let the convolution do the normalisation too."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


class Mixed(nn.Module):
    """Chains of convolutions side by side, and pooling beside them; their outputs are concatenated.

    pool: "average" and "maximum" keep the resolution and are followed by a 1 x 1 convolution to `pooled`
    channels; "halve" is a maximum with stride 2 and nothing after it.
    """

    def __init__(self, c_in: int, chains: Sequence[Chain], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.chains: list[list[list[str]]] = [self._register(chain, c_in) for chain in chains]
        self.pool = POOLS[pool]
        if pooled:
            self.branch_pool = ConvNormReLU(c_in, pooled, 1)
        self.pooled = pooled

    def _register(self, chain: Chain, c: int) -> list[list[str]]:
        names = []
        for step in chain:
            layers = step if isinstance(step, list) else [step]
            for name, width, kernel, *stride in layers:
                self.add_module(name, ConvNormReLU(c, width, kernel, *stride, padded=not stride))
            c = layers[0][1]
            names.append([layer[0] for layer in layers])
        return names

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        outputs = [y for chain in self.chains for y in self._run(chain, x)]
        pooled = self.pool(x)
        return torch.cat([*outputs, self.branch_pool(pooled) if self.pooled else pooled], 1)

    def _run(self, chain: list[list[str]], x: Tensor) -> list[Tensor]:
        *first, last = chain
        for (name,) in first:
            x = self.get_submodule(name)(x)
        return [self.get_submodule(name)(x) for name in last]


POOLS = {
    "average": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "maximum": nn.MaxPool2d(3, 1, 1),
    "halve": nn.MaxPool2d(3, 2),
}


def block_a(c: int, pooled: int) -> Mixed:
    chains: list[Chain] = [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Mixed(c, chains, "average", pooled)


def block_b(c: int) -> Mixed:
    chains: list[Chain] = [
        [("branch3x3", 384, 3, 2)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
    ]
    return Mixed(c, chains, "halve")


def block_c(c: int, inner: int) -> Mixed:
    chains: list[Chain] = [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", inner, 1), ("branch7x7_2", inner, (1, 7)), ("branch7x7_3", 192, (7, 1))],
        [
            ("branch7x7dbl_1", inner, 1),
            ("branch7x7dbl_2", inner, (7, 1)),
            ("branch7x7dbl_3", inner, (1, 7)),
            ("branch7x7dbl_4", inner, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ],
    ]
    return Mixed(c, chains, "average", 192)


def block_d(c: int) -> Mixed:
    chains: list[Chain] = [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3, 2),
        ],
    ]
    return Mixed(c, chains, "halve")


def block_e(c: int, pool: str) -> Mixed:
    chains: list[Chain] = [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
        ],
    ]
    return Mixed(c, chains, pool, 192)


class InceptionNet(nn.Module):
    """Pictures of 299 x 299, about -1 to 1, to the features at one tap. 566 tensors, 23,850,960 parameters.

    tap: "64", "192", "768" (spatial means), "2048" (what FID is made of), "logits_unbiased" (the logits without
    their bias, what torch-fidelity's Inception Score is made of) or "logits".
    """

    def __init__(self, tap: str = "2048") -> None:
        super().__init__()
        if tap not in TAPS:
            raise ValueError(f"unknown tap {tap!r}; known: {', '.join(TAPS)}")
        self.tap = tap
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3, padded=False)
        self.Mixed_5b = block_a(192, 32)
        self.Mixed_5c = block_a(256, 64)
        self.Mixed_5d = block_a(288, 64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, 128)
        self.Mixed_6c = block_c(768, 160)
        self.Mixed_6d = block_c(768, 160)
        self.Mixed_6e = block_c(768, 192)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280, "average")
        self.Mixed_7c = block_e(2048, "maximum")
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b d"]:
        """The features at `tap`; nothing behind it is computed."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        if self.tap == "64":
            return x.mean((2, 3))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, 2)
        if self.tap == "192":
            return x.mean((2, 3))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        if self.tap == "768":
            return x.mean((2, 3))
        pooled = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
        if self.tap == "2048":
            return pooled
        return F.linear(pooled, self.fc.weight, self.fc.bias if self.tap == "logits" else None)


def for_inference(network: InceptionNet) -> InceptionNet:
    """The same network, prepared in place to run fast: no gradients, norms folded in, channels last.

    It gives the same features up to float32 rounding, and its state dict is no longer the published one.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, ConvNormReLU):
            module.fuse()
    return network.to(memory_format=torch.channels_last)


def load_inception(
    path: str | Path, tap: str = "2048", expected: WeightFile = INCEPTION_FILE
) -> tuple[InceptionNet, str]:
    """The network with the weights of a file, in eval mode, and the file's sha256.

    expected: what the file must be; a Fréchet distance of another file's features is not called FID. Raises
    ValueError for a truncated or other file, and unless its tensors are all the network has and no more.
    """
    with torch.device("meta"):
        network = InceptionNet(tap)
    state, sha256 = load_weights(path, expected)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no state dict of this Inception network: {error}") from error
    return network.eval().requires_grad_(False), sha256
