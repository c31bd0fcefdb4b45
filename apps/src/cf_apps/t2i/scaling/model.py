"""The memory and throughput model of text-to-image training: bytes and operations as formulae of a config.

`docs/scaling.md` says where each comes from and how it was checked. Activations are the backbone's alone.
"""

import math
from dataclasses import dataclass, replace

from cf_transformer import DiMRConfig, StageConfig, count_parameters

from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.scaling.parts import outline, training_macs

FP32 = 4  # bytes of a number
STATE = {"weights": 1, "gradients": 1, "moments": 2, "average": 1}  # fp32 numbers a parameter
CHECKPOINT = 4  # of those the gradients are not kept

# Bytes that stay alive from forward to backward, per token, of two blocks and the skip between them:
# a for each channel, h for each channel inside the gated MLP. By tensors that outlive the forward pass, see the page.
PAIR = {
    # kind          recompute     precision     a    h
    ("transformer", "nothing", "fp32"): (92, 32),
    ("transformer", "cheap",   "fp32"): (68, 16),
    ("transformer", "blocks",  "fp32"): (20, 0),
    ("transformer", "nothing", "bf16"): (64, 16),
    ("transformer", "cheap",   "bf16"): (36, 8),
    ("transformer", "blocks",  "bf16"): (12, 0),
    ("convnext",    "nothing", "fp32"): (40, 32),
    ("convnext",    "cheap",   "fp32"): (32, 16),
    ("convnext",    "blocks",  "fp32"): (16, 0),
    ("convnext",    "nothing", "bf16"): (36, 16),
    ("convnext",    "cheap",   "bf16"): (24, 8),
    ("convnext",    "blocks",  "bf16"): (10, 0),
}  # fmt: skip


def parameters(config: T2IConfig) -> int:
    """All trained parameters but a vocabulary's, whose size is the data's."""
    return count_parameters(outline(config))


def state_bytes(trained: int, ranks: int = 1) -> dict[str, float]:
    """Weights, gradients, moments and average on one of `ranks` that share them (FSDP); DDP is ranks=1."""
    return {name: FP32 * numbers * trained / ranks for name, numbers in STATE.items()}


def stage_activation_bytes(config: DiMRConfig, stage: StageConfig, precision: str) -> int:
    """Of one sample: what a stage keeps for its backward pass."""
    a, h = PAIR[stage.kind, config.recompute, precision]
    tokens = math.prod(config.grid(stage)) + (stage is config.stages[0])
    pairs, middle = divmod(stage.n_blocks, 2)
    # the middle block has no skip; half a pair is a little more than it keeps
    return math.ceil((pairs + middle / 2) * (a * stage.d_model + h * config.hidden(stage)) * tokens)


def activation_bytes(config: DiMRConfig, rows: int, precision: str) -> int:
    """Of `rows` samples through the backbone, and in bf16 the rounded copies of the weights that autocast makes.

    With `cheap` or `blocks` the backward pass needs one block's own on top, while it computes it again.
    """
    kept = sum(stage_activation_bytes(config, stage, precision) for stage in config.stages)
    again = 0
    if config.recompute != "nothing":
        whole = replace(config, recompute="nothing")
        again = max(
            stage_activation_bytes(whole, stage, precision) // stage.n_blocks for stage in whole.stages
        )
    return rows * (kept + again)


def network_bytes(trained: int, ranks: int, parallel: str, parts: int = 1) -> float:
    """Bytes that each rank sends in a step, by the ring algorithms: a collective of n bytes sends n (N - 1) / N.

    ddp: one all-reduce of the gradients, which is two of those, once a step. fsdp: in each of the step's `parts`, two
    all-gathers of the weights (forward, backward) and one reduce-scatter of the gradients. All in fp32.
    """
    times = {"ddp": 2, "fsdp": 3 * parts}
    if parallel not in times:
        raise ConfigError(f"unknown parallel {parallel!r}; known: {', '.join(times)}")
    return times[parallel] * FP32 * trained * (ranks - 1) / ranks


def sample_bytes(config: T2IConfig) -> int:
    """Of a sample in shards: half-precision latent and features of a caption as long as the model reads."""
    features = 0 if config.language.name == "vocab" else config.language.max_tokens * config.language.width
    return 2 * (features + math.prod(config.latent))


def step_flops(config: T2IConfig) -> float:
    """Floating-point operations of one sample in a training step: two a multiply-accumulate."""
    return 2.0 * training_macs(config)


@dataclass(frozen=True)
class Machine:
    """What is assumed of a cluster; none of it was measured here. Bytes and operations per second.

    peak: dense bf16 of one GPU. use: the share of it that a step reaches, low and high. inside: between the GPUs of a
    node of `node`. outside: of one GPU to other nodes. memory: of a GPU. disk: reading, all GPUs of a node together.
    """

    name: str = "H100 80 GB SXM"
    peak: float = 989e12
    use: tuple[float, float] = (0.25, 0.40)
    inside: float = 300e9
    outside: float = 40e9
    memory: float = 80e9
    disk: float = 2e9
    node: int = 8

    def link(self, gpus: int) -> float:
        """Bytes per second of the slowest link that a collective of all GPUs passes."""
        return self.inside if gpus <= self.node else self.outside


def with_recompute(config: T2IConfig, recompute: str) -> T2IConfig:
    """The config with another way to save memory; ConfigError where the backbone is no DiMR."""
    if not isinstance(config.backbone, DiMRConfig):
        raise ConfigError(
            "the activation model is for backbones that are a plain DiMR; choose another preset"
        )
    return replace(
        config, backbone=DiMRConfig.from_dict({**config.backbone.to_dict(), "recompute": recompute})
    )
