"""The ops of cf_transformer.kernels at the shapes of the 951M model, and cuDNN's depthwise convolution."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from cf_transformer import Cascade
from cf_transformer.kernels import add_td_norm, concat_td_norm, geglu, time_lerps, using
from cf_transformer.kernels.dispatch import Mode
from cf_transformer.kernels.qk_norm_rope import qk_norm_rope
from cf_transformer.position import pixel_shuffle
from einops import rearrange
from gpu import floors
from gpu.floors import Passes
from gpu.measure import OURS, Bench, Op, Row, Way, errors, floor, in_float64, recorded, results
from torch import Tensor, nn
from torch.func import functional_call

TAPS = 7
CONCATENATION = "concatenation + layer norm"
CHECKED = 2  # samples


@dataclass(frozen=True)
class Shapes:
    """Of the model: samples; tokens, width, heads of the transformer stage; tokens and width of the convnext stage."""

    b: int = 64
    n: int = 257
    d: int = 1024
    heads: int = 16
    maps: int = 66
    grid: int = 32
    conv_d: int = 512
    vectors: int = 130  # norms of the transformer stage
    widths: tuple[int, ...] = (960, 1152)  # of DiMR-XL and DiMR-G, no powers of two


FULL = Shapes()
DRY = Shapes(b=3, n=5, d=16, heads=2, maps=3, grid=6, conv_d=8, vectors=3, widths=(12,))


def kernel_way(f: Way, dry: bool) -> Way:
    """By the Triton kernel; in a dry run, by whatever this device has."""
    return under("auto" if dry else "triton", f)


def under(mode: Mode, f: Way) -> Way:
    """f with the ops in a mode of their dispatch."""

    def way(*inputs: Tensor) -> Tensor | Sequence[Tensor]:
        with using(mode):
            return f(*inputs)

    return way


def ways(f: Way, dry: bool) -> dict[str, Way]:
    """The kernel, plain torch, and plain torch compiled (not in a dry run: it takes long)."""
    found = {OURS: kernel_way(f, dry), "eager": under("torch", f)}
    return found if dry else found | {"compiled": under("torch", torch.compile(f, dynamic=False))}


def kernel_ops(device: torch.device, dry: bool) -> dict[str, Callable[[], Op]]:
    """Every op that has a kernel, by name; made when asked for."""
    s = DRY if dry else FULL
    table: dict[str, tuple[Callable[[int], list[Tensor]], Way, Passes]] = {}

    def activations(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16).requires_grad_()

    def gains(*shape: int) -> Tensor:
        return (1 + 0.3 * torch.randn(shape, device=device)).requires_grad_()

    def norm(name: str, n: int, d: int) -> None:
        table[name] = (
            lambda b: [activations(b, n, d), activations(b, n, d), gains(b, 1, d)],
            lambda x, r, gamma: add_td_norm(x, r, gamma, None, norm="rms"),
            floors.add_norm(s.b, n, d),
        )

    def gate(name: str, n: int, hidden: int) -> None:
        table[name] = (lambda b: [activations(b, n, 2 * hidden)], geglu, floors.geglu(s.b * n, hidden))

    cells = s.grid**2
    norm("add + RMS norm", s.n, s.d)
    table["add + layer norm"] = (
        lambda b: [activations(b, s.n, s.d), activations(b, s.n, s.d), gains(b, 1, s.d), gains(b, 1, s.d)],
        lambda x, r, gamma, beta: add_td_norm(x, r, gamma, beta, norm="layer"),
        floors.add_norm(s.b, s.n, s.d),
    )
    gate("GEGLU", s.n, 2 * s.d)
    features = s.maps * s.d
    table[CONCATENATION] = (
        lambda b: (
            [activations(b, s.n - 1, s.d) for _ in range(s.maps)]
            + [gains(b, 1, features), gains(b, 1, features)]
        ),
        lambda *inputs: concat_td_norm(inputs[:-2], *inputs[-2:]),
        floors.concat_norm(s.b, s.n - 1, features),
    )
    table["time-dependent vectors"] = (
        lambda b: [*(gains(s.vectors, s.d) for _ in range(4)), torch.rand(b, device=device)],
        lambda param0, param1, w, b, t: time_lerps([(param0, param1, w, b)], t),
        floors.time_lerps(s.b, s.vectors, s.d),
    )
    norm("add + RMS norm, convnext", cells, s.conv_d)
    gate("GEGLU, convnext", cells, 2 * s.conv_d)
    table["QK-norm + RoPE"] = (
        lambda b: [activations(b, s.n, 3, s.heads, s.d // s.heads), *_rope_inputs(s, device)],
        lambda qkv, cos, sin, gain: qk_norm_rope(qkv, cos, sin, gain),
        floors.qk_norm_rope(s.b, s.n, s.d),
    )
    for d in s.widths:
        norm(f"add + RMS norm, width {d}", s.n, d)

    def made(name: str) -> Op:
        make, f, passes = table[name]
        # 67,584 features in float64 do not fit for all samples
        checked = CHECKED if name == CONCATENATION else None
        return Op(s.b, make, ways(f, dry), under("torch", f), passes, checked)

    made_when_asked = {name: lambda name=name: made(name) for name in table}
    return made_when_asked | {"hand-over between stages": lambda: hand_over(device, dry)}


class Concatenated(nn.Module):
    """The hand-over between stages with the concatenation made: what `Cascade` streams."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def forward(self, maps: Sequence[Tensor], t: Tensor) -> Tensor:
        """As `Cascade`, the hand-over alone."""
        ours = self.cascade
        gamma, beta = (rearrange(lerp(t), "l b 1 d -> b 1 (l d)") for lerp in (ours.gain, ours.shift))
        x = ours.project(concat_td_norm(maps, gamma, beta))
        return ours.norm(pixel_shuffle(x, ours.ratio, ours.grid), t)


class Streamed(nn.Module):
    """The hand-over as `Cascade` makes it."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def forward(self, maps: Sequence[Tensor], t: Tensor) -> Tensor:
        """As `Cascade`, the hand-over alone."""
        return self.cascade(maps, t)[1]


def hand_over(device: torch.device, dry: bool) -> Op:
    """From all maps of a stage to what is added to the next: streamed or concatenated, under bf16 autocast."""
    s = DRY if dry else FULL
    side = math.isqrt(s.n - 1)
    with torch.device(device):
        cascade = Cascade(s.maps, s.d, s.conv_d, 2, (side, side))
    names = [f"cascade.{name}" for name, _ in cascade.named_parameters()]

    def make(b: int) -> list[Tensor]:
        maps = [torch.randn(b, s.n - 1, s.d, device=device, dtype=torch.bfloat16) for _ in range(s.maps)]
        leaves = [p.detach() + 0.02 * torch.randn_like(p) for p in cascade.parameters()]
        return [x.requires_grad_() for x in (*maps, *leaves)] + [torch.rand(b, device=device)]

    def way(module: nn.Module) -> Way:
        def run(*inputs: Tensor) -> Tensor:
            maps, leaves, t = inputs[: s.maps], inputs[s.maps : -1], inputs[-1]
            with torch.autocast(device.type, torch.bfloat16, enabled=maps[0].dtype == torch.bfloat16):
                return functional_call(module, dict(zip(names, leaves, strict=True)), (maps, t))

        return run

    concatenated, streamed = way(Concatenated(cascade)), way(Streamed(cascade))
    return Op(
        b=s.b,
        make=make,
        ways={
            OURS: kernel_way(concatenated, dry),
            "eager": under("torch", concatenated),
            "streamed, kernels": kernel_way(streamed, dry),
            "streamed, eager": under("torch", streamed),
        },
        exact=under("torch", concatenated),
        passes=floors.hand_over(s.b, s.n - 1, s.maps * s.d, 4 * s.conv_d),
        checked=CHECKED,
    )


def _rope_inputs(s: Shapes, device: torch.device) -> list[Tensor]:
    """Cosines and sines of every pair, none for the indicator's token, and a gain for every head."""
    angles = 6 * torch.rand(s.n, s.d // s.heads // 2, device=device)
    angles[0] = 0
    gain = (1 + 0.3 * torch.rand(2, s.heads, device=device)).requires_grad_()
    return [angles.cos(), angles.sin(), gain]


def depthwise(bench: Bench) -> Row:
    """cuDNN's depthwise 7 x 7 in bf16: the result, the gradient of the image, that of the kernel; both layouts."""
    s = DRY if bench.clock.dry else FULL
    torch.manual_seed(0)
    image = torch.randn(s.b, s.grid**2, s.conv_d, device=bench.device, dtype=torch.bfloat16)
    last = rearrange(image, "b (h w) d -> b d h w", h=s.grid)  # channels last, as tokens are
    weight = torch.randn(s.conv_d, 1, TAPS, TAPS, device=bench.device, dtype=torch.bfloat16).requires_grad_()
    work = floors.depthwise(s.b, s.grid**2, s.conv_d, TAPS**2)
    one = work.forward
    row: Row = {
        "passes": {name: floor(one, bench) for name in ("forward", "image gradient", "kernel gradient")},
        "errors": {},
        "failed": {},
    }
    few = [last[:CHECKED].detach().requires_grad_(), weight]
    exact = results(_convolve, in_float64(few))
    for name, x in {"channels last": last, "channels first": last.contiguous()}.items():
        with recorded(row["failed"], name):
            mine = [x[:CHECKED].detach().requires_grad_(), weight]
            row["errors"][name] = errors(results(_convolve, mine), exact)
            for part, call in _convolutions(x, weight).items():
                row["passes"][part][name] = bench.clock.op(lambda _, call=call: call, 1)
    return row


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=TAPS // 2, groups=len(weight))


@torch.no_grad()
def _convolutions(x: Tensor, weight: Tensor) -> dict[str, Callable[[], object]]:
    """The three passes, each by itself."""
    weight = weight.detach()
    given = torch.randn_like(_convolve(x, weight))

    def backward(image: bool, kernel: bool) -> Callable[[], object]:
        zero, one, half = [0, 0], [1, 1], [TAPS // 2, TAPS // 2]
        return lambda: torch.ops.aten.convolution_backward(
            given, x, weight, None, one, half, one, False, zero, len(weight), [image, kernel, False]
        )

    return {
        "forward": lambda: _convolve(x, weight),
        "image gradient": backward(True, False),
        "kernel gradient": backward(False, True),
    }
