"""The least that an op must do: bytes to move, operations to make, and how long that takes on a given card.

An element is one number of the activations in bf16, two bytes; every input is read once, every output written once.
A floor is a bound, never a prediction.
"""

from dataclasses import dataclass

from cf_transformer import DiMRConfig, StageConfig, count_macs

BF16, FP32 = 2, 4
ADAMW_BYTES = 7 * FP32  # weight, gradient and two moments read; weight and two moments written


@dataclass(frozen=True)
class Rates:
    """What a card reaches: bytes copied a second (read and written), bf16 products and fp32 arithmetic in flop/s."""

    copy: float
    matmul: float
    fp32: float


@dataclass(frozen=True)
class Work:
    """Bytes of device memory, flops of tensor cores (`matmul`), flops of fp32 arithmetic."""

    bytes: float = 0.0
    matmul: float = 0.0
    fp32: float = 0.0

    def bounds(self, rates: Rates) -> dict[str, float]:
        """Seconds that each of the three takes by itself."""
        return {
            "copy": self.bytes / rates.copy,
            "matmul": self.matmul / rates.matmul,
            "fp32": self.fp32 / rates.fp32,
        }

    def seconds(self, rates: Rates) -> float:
        """The floor: the three at once."""
        return max(self.bounds(rates).values())

    def bound_by(self, rates: Rates) -> str:
        """Which of the three it is."""
        bounds = self.bounds(rates)
        return max(bounds, key=lambda name: bounds[name])


@dataclass(frozen=True)
class Passes:
    """Of one op: the forward pass and the backward pass."""

    forward: Work
    backward: Work


def add_norm(b: int, n: int, d: int) -> Passes:
    """Residual sum and its norm. Forward: two in, two out. Backward: two gradients and the sum in, one gradient out."""
    moved = 8.0 * b * n * d
    return Passes(Work(moved), Work(moved))


def geglu(tokens: int, hidden: int) -> Passes:
    """act(a) * b of (tokens, 2 hidden). Backward: a, b and one gradient in, two out."""
    return Passes(Work(6.0 * tokens * hidden), Work(10.0 * tokens * hidden))


def attention(b: int, n: int, heads: int, e: int) -> Passes:
    """qkv in, result out. Backward: qkv, result and its gradient in, three gradients out; five products, not two."""
    elements, products = b * n * heads * e, 4.0 * b * heads * n * n * e
    return Passes(Work(8.0 * elements, products), Work(16.0 * elements, 2.5 * products))


def qk_norm_rope(b: int, n: int, d: int) -> Passes:
    """q, k, v in and out, v unchanged. Backward: three gradients and the rotated q, k in, three gradients out."""
    return Passes(Work(12.0 * b * n * d), Work(16.0 * b * n * d))


def concat_norm(b: int, n: int, features: int) -> Passes:
    """All maps in, their normalised concatenation out. Backward: maps and its gradient in, the maps' gradients out."""
    return Passes(Work(4.0 * b * n * features), Work(6.0 * b * n * features))


def hand_over(b: int, n: int, features: int, out: int) -> Passes:
    """Maps in, their normalised concatenation times (features, out) out, streamed; three products in all."""
    product, maps, result = 2.0 * b * n * features * out, BF16 * b * n * features, BF16 * b * n * out
    weight = BF16 * features * out
    forward = Work(maps + weight + result, product)
    return Passes(forward, Work(2 * maps + 2 * weight + result, 2 * product))


def time_lerps(b: int, vectors: int, d: int) -> Passes:
    """Four fp32 leaves in, gamma (b rows) out. Backward: leaves and gradient in, four gradients out."""
    leaves, out = 4.0 * FP32 * vectors * d, float(FP32) * b * vectors * d
    return Passes(Work(leaves + out), Work(2 * leaves + out))


def depthwise(b: int, cells: int, d: int, taps: int) -> Passes:
    """One image in, one out, a multiply and an add a tap. Backward, for image and kernel: two in, one out."""
    moved, flops = 4.0 * b * cells * d, 2.0 * taps * b * cells * d
    return Passes(Work(moved, fp32=flops), Work(1.5 * moved, fp32=2 * flops))


def adamw(parameters: int) -> Work:
    """One step over fp32 weights."""
    return Work(float(ADAMW_BYTES) * parameters)


def products(config: DiMRConfig, b: int) -> Work:
    """Every product of a forward pass but those of attention, and no convolution channel by channel."""
    others = 0
    for stage in config.stages:
        n = tokens(config, stage)
        per_block = 2 * stage.d_model * n * n if stage.n_heads else config.kernel_size**2 * stage.d_model * n
        others += stage.n_blocks * per_block
    return Work(matmul=2.0 * b * (count_macs(config) - others))


def tokens(config: DiMRConfig, stage: StageConfig) -> int:
    """Of one sample in a stage, with the indicator's in the first."""
    rows, columns = config.grid(stage)
    return rows * columns + (stage is config.stages[0])


def block(config: DiMRConfig, stage: StageConfig, b: int) -> list[Passes]:
    """What a block does besides its products, one kernel a chain."""
    n, d = tokens(config, stage), stage.d_model
    gate = geglu(b * n, config.hidden(stage))
    if stage.n_heads is not None:
        norm = add_norm(b, n, d)
        return [norm, attention(b, n, stage.n_heads, d // stage.n_heads), norm, gate]
    return [depthwise(b, n, d, config.kernel_size**2), add_norm(b, n, d), gate]


def forward_seconds(config: DiMRConfig, b: int, rates: Rates) -> float:
    """Products, then everything else once, each at its own floor; the hand-over between stages is read once."""
    return products(config, b).seconds(rates) + sum(p.forward.seconds(rates) for p in _others(config, b))


def training_seconds(config: DiMRConfig, b: int, parameters: int, rates: Rates) -> float:
    """Three times the products, the rest forward and backward, and AdamW; nothing computed twice."""
    rest = sum(p.forward.seconds(rates) + p.backward.seconds(rates) for p in _others(config, b))
    return 3 * products(config, b).seconds(rates) + rest + adamw(parameters).seconds(rates)


def _others(config: DiMRConfig, b: int) -> list[Passes]:
    blocks = [p for stage in config.stages for _ in range(stage.n_blocks) for p in block(config, stage, b)]
    maps = []
    for low in config.stages[:-1]:
        rows, columns = config.grid(low)
        features = (low.n_blocks + 1) * low.d_model
        read_once = concat_norm(b, rows * columns, features)
        # streamed: every map is read where it is, and nothing is written beside the sums
        maps.append(Passes(Work(read_once.forward.bytes / 2), Work(read_once.backward.bytes * 2 / 3)))
    return blocks + maps
