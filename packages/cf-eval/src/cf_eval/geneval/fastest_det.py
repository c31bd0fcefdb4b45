"""FastestDet: a COCO detector of 0.24 million parameters (Ma 2022, github.com/dog-qiuqiu/FastestDet).

    picture, 352 x 352, BGR  ->  ShuffleNetV2  ->  maps at strides 8, 16, 32  ->  joined at 16  ->  pooled  ->  head

Each of the 22 x 22 cells says: is there an object, where, and of which class. It is far weaker than the detector of
the official GenEval numbers (found classes of COCO photographs at score 0.5: precision 0.65, recall 0.51), but it runs
anywhere and shows how a detector is wired. Names of the parts are those of the released checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_eval.geneval.coco_classes import COCO_CLASSES
from cf_eval.geneval.objects import FoundObject, Picture, without_overlaps
from cf_eval.images.resize import antialias_bilinear
from cf_eval.images.weights import WeightFile, load_weights

FASTEST_DET_FILE = WeightFile("FastestDet's weight_AP05:0.253207_280-epoch.pth", "7f688d478ee474c8", 950_000)

SIDE = 352


class FastestDetNet(nn.Module):
    """Maps (b, 3, h, w) in 0..1, blue first, sides divisible by 32, to (b, 5 + classes, h / 16, w / 16)."""

    def __init__(self, classes: int = len(COCO_CLASSES)) -> None:
        super().__init__()
        self.backbone = _ShuffleNet()
        self.SPP = _Pooling(48 + 96 + 192, 96)
        self.detect_head = _Head(96, classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k u v"]:
        fine, middle, coarse = self.backbone(x)
        joined = [F.avg_pool2d(fine, 3, 2, 1), middle, F.interpolate(coarse, scale_factor=2.0)]
        return self.detect_head(self.SPP(torch.cat(joined, 1)))


def _conv(i: int, o: int, side: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(i, o, side, stride, side // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]


def _depthwise(d: int, side: int, stride: int = 1) -> list[nn.Module]:
    return _conv(d, d, side, stride, groups=d)


class _ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(*_conv(3, 24, 3, 2), nn.ReLU())
        self.stage2 = _stage(24, 48, 4)
        self.stage3 = _stage(48, 96, 8)
        self.stage4 = _stage(96, 192, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.stage2(F.max_pool2d(self.first_conv(x), 3, 2, 1))
        middle = self.stage3(fine)
        return fine, middle, self.stage4(middle)


def _stage(i: int, o: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Halving(i, o), *(_Shuffle(o) for _ in range(blocks - 1)))


def _main_branch(i: int, middle: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv(i, middle), nn.ReLU(), *_depthwise(middle, 3, stride), *_conv(middle, o), nn.ReLU()
    )


class _Halving(nn.Module):
    """Half the side, i to o channels: two branches side by side."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.branch_main = _main_branch(i, o // 2, o - i, 2)
        self.branch_proj = nn.Sequential(*_depthwise(i, 3, 2), *_conv(i, i), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)


class _Shuffle(nn.Module):
    """Every second channel passes by, the others go through the branch."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.branch_main = _main_branch(d // 2, d // 2, d // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, ::2], self.branch_main(x[:, 1::2])], 1)


class _Pointwise(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Sequential(*_conv(i, o), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x)


class _Pooling(nn.Module):
    """Three chains of one, two and three 5 x 5 depthwise convolutions: three sizes of neighbourhood."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.Conv1x1 = _Pointwise(i, o)
        self.S1, self.S2, self.S3 = (_chain(o, length) for length in (1, 2, 3))
        self.output = nn.Sequential(*_conv(3 * o, o))

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv1x1(x)
        return (x + self.output(torch.cat([self.S1(x), self.S2(x), self.S3(x)], 1))).relu()


def _chain(d: int, length: int) -> nn.Sequential:
    return nn.Sequential(*(layer for _ in range(length) for layer in (*_depthwise(d, 5), nn.ReLU())))


class _Branch(nn.Module):
    def __init__(self, d: int, o: int) -> None:
        super().__init__()
        self.conv5x5 = nn.Sequential(*_depthwise(d, 5), nn.ReLU(), *_conv(d, o))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv5x5(x)


class _Head(nn.Module):
    """Object or not (a probability), four raw numbers of the box, class probabilities."""

    def __init__(self, d: int, classes: int) -> None:
        super().__init__()
        self.conv1x1 = _Pointwise(d, d)
        self.obj_layers, self.reg_layers, self.cls_layers = (_Branch(d, o) for o in (1, 4, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1(x)
        return torch.cat([self.obj_layers(x).sigmoid(), self.reg_layers(x), self.cls_layers(x).softmax(1)], 1)


@dataclass(frozen=True)
class FastestDet:
    """The network as a GenEval detector.

    least_score: cells below it are no objects. max_overlap: of two boxes of a class that overlap by this share of
    their union or more, the lesser is dropped, as the released code does.
    """

    network: FastestDetNet
    sha256: str
    least_score: float = 0.1
    max_overlap: float = 0.45

    @property
    def name(self) -> str:
        return f"FastestDet, COCO, 352 px, sha256 {self.sha256[:8]}"

    def __call__(self, picture: Picture) -> list[FoundObject]:
        """Objects of one picture, best first of each class; boxes in its own pixels, held inside of it."""
        h, w = picture.shape[1:]
        resized = antialias_bilinear(picture[None].float() / 255, (SIDE, SIDE))
        with torch.no_grad():
            cells = self.network(resized.flip(1))[0]
        found = decode(cells, self.least_score, h, w)
        classes = dict.fromkeys(thing.label for thing in found)
        return [
            thing
            for label in classes
            for thing in without_overlaps([f for f in found if f.label == label], self.max_overlap)
        ]


def decode(cells: Float[Tensor, "k u v"], least_score: float, h: int, w: int) -> list[FoundObject]:
    """Boxes in pixels of an h x w picture from the head's (5 + classes, u, v), best first.

    Of the cell in column i, row j of v x u: centre ((i + tanh a) / v, (j + tanh b) / u), sides sigmoid c and sigmoid d
    of the picture's, score = object probability times that of the likeliest class.
    """
    u, v = cells.shape[1:]
    chance, label = cells[5:].max(0)
    score = cells[0] * chance
    rows, columns = torch.meshgrid(torch.arange(u), torch.arange(v), indexing="ij")
    x, y = (columns + cells[1].tanh()) / v * w, (rows + cells[2].tanh()) / u * h
    half_width, half_height = cells[3].sigmoid() * w / 2, cells[4].sigmoid() * h / 2
    left, right = ((x + s * half_width).clamp(0, w) for s in (-1, 1))
    top, bottom = ((y + s * half_height).clamp(0, h) for s in (-1, 1))
    taken = score > least_score
    table = torch.stack([score, label.to(score.dtype), left, top, right, bottom])[:, taken].T
    found = [
        FoundObject(COCO_CLASSES[int(row[1])], row[0], (row[2], row[3], row[4], row[5]))
        for row in table.tolist()
    ]
    return sorted(found, key=lambda thing: -thing.score)


def load_fastest_det(path: str | Path, expected: WeightFile = FASTEST_DET_FILE) -> FastestDet:
    """The detector with the weights of a local file, checked by size and sha256.

    Raises FileNotFoundError, and ValueError for a truncated or another file.
    """
    state, sha256 = load_weights(path, expected)
    network = FastestDetNet()
    network.load_state_dict(state)
    return FastestDet(network.eval(), sha256)
