"""Which KL weight keeps the source healthy, and how it goes with the latent's size (CrossFlow app. A: lambda = 1e-4).

    OMP_NUM_THREADS=1 uv run --no-sync python benchmarks/papers/kl_weight.py --out benchmarks/results/kl_weight

Tiny text-to-image flows on captioned shapes at three latents of 192, 1,536 and 3,072 dimensions, each with four weights
of the KL. The weights are the same multiples, at each latent, of the paper's weight per dimension: 1e-4 on a sum over
4 x 32 x 32, so 0.41 / dimensions. Nothing else changes. Measured on held-out pairs:

    sigma, |mean|, snr, retrieval   of the source (EncoderLosses' statistics; retrieval of the mean against the image)
    flow                            mean (v - v_t)^2 over t ~ U(0, 1)
    found                           the share of samples nearest, of 256 held-out images, to their own: does a picture
                                    say what its caption says?
    pull                            d L / d ln sigma of L_FM and of L_Enc, all sigmas scaled together; where training
                                    has settled they equal what the KL pushes back, weight * sum(1 - sigma^2)

The theory (cf_encoders.kl_weight): L_FM is proportional to sigma, so its pull is L_FM itself, and L_FM stays below
weight * dimensions.
"""

import argparse
import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.engine.codecs import CodecConfig, fitted
from cf_apps.t2i.config import LanguageConfig, LossConfig, T2IConfig
from cf_apps.t2i.model import T2IModel, build
from cf_apps.t2i.task import T2ITask
from cf_encoders import ImageTowerConfig, TextVEConfig, Vocabulary, info_nce, retrieval_accuracy
from cf_flowcore import CondOT, solve
from cf_transformer import DiMRConfig, StageConfig
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "peers"))
from record import commit

PAPER = 1e-4 * 4 * 32 * 32  # weight per dimension
MULTIPLES = (1.0, 0.25, 4.0, 0.05)
TRAIN, HELD_OUT, HELD_OUT_SEED = 8_192, 256, 1_000_000
BATCH, LR, WARMUP = 64, 2e-3, 50


@dataclass(frozen=True)
class Latent:
    """How 32 x 32 pictures become x_1, and how many times the tower halves it."""

    shape: tuple[int, int, int]
    patch: int
    halvings: int


LATENTS = (
    Latent((12, 4, 4), patch=8, halvings=1),
    Latent((24, 8, 8), patch=4, halvings=2),
    Latent((12, 16, 16), patch=2, halvings=3),
)


@dataclass(frozen=True)
class Result:
    """One training, measured on held-out pairs. The pulls are per unit of ln sigma."""

    latent: tuple[int, int, int]
    multiple: float
    kl_weight: float
    seed: int
    sigma: float
    mean_abs: float
    snr: float
    retrieval: float
    flow: float
    found: float
    flow_pull: float
    encoder_pull: float
    kl_push: float
    seconds: float


def config(latent: Latent, kl_weight: float) -> T2IConfig:
    c, h, w = latent.shape
    cell = h // 4  # 16 tokens for every latent
    return T2IConfig(
        image_size=32,
        language=LanguageConfig("vocab", width=64, max_tokens=40),
        codec=CodecConfig("patch-dct", patch=latent.patch, keep=c, whitening=1.0),
        text_ve=TextVEConfig(
            64, 40, latent.shape, width=64, heads=4, depth=1, mlp_hidden=128, conv_depth=2, patch=cell
        ),
        backbone=DiMRConfig(
            c,
            (h, w),
            (StageConfig("transformer", 128, 3, cell, n_heads=4),),
            activation="silu",
            attention="matmul",
            init="scaled",
        ),
        image_tower=ImageTowerConfig(latent.shape, latent.shape, stages=(32,) * latent.halvings, hidden=128),
        loss=LossConfig(encoder_weight=1.0, kl_weight=kl_weight, null_rate=0.0, times="uniform"),
    )


def train(task: T2ITask, steps: int, seed: int, name: str) -> None:
    """AdamW, cosine learning rate, gradients of at most norm 1."""
    parameters = list(task.modules.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(seed)
    begin = time.monotonic()
    for step in range(steps):
        rate = min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LR * max(rate, 0.02)
        losses = task.losses(task.batch(step * BATCH, BATCH), generator, step / steps)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99:
            flow, sigma = losses.terms["flow"][1].item(), losses.stats["sigma"].item()
            print(
                f"{name}: {step + 1}/{steps}  {(step + 1) / (time.monotonic() - begin):.1f} steps/s  "
                f"flow {flow:.3f}  sigma {sigma:.3f}  retrieval {losses.stats['retrieval'].item():.2f}",
                file=sys.stderr,
            )


def measure(model: T2IModel, seed: int) -> dict[str, float]:
    """Everything that is measured on the first HELD_OUT held-out pairs."""
    drawn = CaptionedShapes(HELD_OUT, 32, seed=HELD_OUT_SEED).batch(torch.arange(HELD_OUT))
    x_1 = model.encode_images(drawn.images)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        posterior = model.encode_text(drawn.captions)
        image_latent = model.modules["image_tower"](x_1)
        x_0 = posterior.sample(generator)
        end = solve(model.backbone, x_0, method="midpoint", steps=10).x
        flow, pulls = pulls_on_sigma(model, posterior.mean, posterior.std, x_1, image_latent, generator)
    statistics = posterior.statistics()
    weight = model.config.loss.kl_weight
    nearest = torch.cdist(end.flatten(1), x_1.flatten(1)).argmin(dim=1)
    return {
        "sigma": statistics["sigma"].item(),
        "mean_abs": statistics["mean_abs"].item(),
        "snr": statistics["snr"].item(),
        "retrieval": retrieval_accuracy(posterior.mean, image_latent).item(),
        "flow": flow,
        "found": (nearest == torch.arange(HELD_OUT)).float().mean().item(),
        "flow_pull": pulls[0],
        "encoder_pull": pulls[1],
        "kl_push": weight * (1 - posterior.std.square()).flatten(1).sum(dim=1).mean().item(),
    }


def pulls_on_sigma(
    model: T2IModel,
    mean: Tensor,
    sigma: Tensor,
    x_1: Tensor,
    image_latent: Tensor,
    generator: torch.Generator,
    rounds: int = 16,
) -> tuple[float, tuple[float, float]]:
    """L_FM, and the derivatives of L_FM and L_Enc by g at g = 1, where z_0 = mean + g sigma eps."""
    path, loss = CondOT(model.config.loss.sigma_min), model.config.loss
    flows, flow_pulls, encoder_pulls = [], [], []
    for _ in range(rounds):
        t = (torch.arange(len(x_1)) + torch.rand(len(x_1), generator=generator)) / len(x_1)
        t = t[torch.randperm(len(t), generator=generator)]
        eps = torch.randn(mean.shape, generator=generator)
        with torch.enable_grad():
            g = torch.ones((), requires_grad=True)
            x_0 = mean + g * sigma * eps
            v = model.backbone(path.x_t(x_0, x_1, t), t)
            flow = (v - path.v(x_0, x_1, t)).square().mean()
            # negatives as in training: batches of BATCH
            pairs = zip(x_0.split(BATCH), image_latent.split(BATCH), strict=True)
            scale = model.modules["log_scale"]()
            encoder = torch.stack([info_nce(z, target, scale) for z, target in pairs]).mean()
            flow_pulls.append(torch.autograd.grad(flow, g, retain_graph=True)[0].item())
            encoder_pulls.append(loss.encoder_weight * torch.autograd.grad(encoder, g)[0].item())
        flows.append(flow.item())
    return sum(flows) / rounds, (sum(flow_pulls) / rounds, sum(encoder_pulls) / rounds)


def run(latent: Latent, multiple: float, steps: int, seed: int) -> Result:
    """Train and measure one."""
    weight = multiple * PAPER / math.prod(latent.shape)
    data = CaptionedShapes(TRAIN, 32, seed=seed)
    every = data.batch(torch.arange(2_048))
    plan = config(latent, weight)
    plan = replace(plan, codec=fitted(plan.codec, every.images))
    model = build(plan, Vocabulary.build(every.captions), torch.device("cpu"), seed)
    begin = time.monotonic()
    train(T2ITask(model, data, "shapes", seed), steps, seed, f"{latent.shape} x{multiple:g} seed {seed}")
    return Result(
        latent.shape, multiple, weight, seed, **measure(model, seed), seconds=time.monotonic() - begin
    )


COLUMNS = {
    "latent": lambda r: "x".join(map(str, r.latent)),
    "dimensions": lambda r: f"{math.prod(r.latent):,}",
    "x paper": lambda r: f"{r.multiple:g}",
    "weight": lambda r: f"{r.kl_weight:.1e}",
    "sigma": lambda r: f"{r.sigma:.3f}",
    "abs mean": lambda r: f"{r.mean_abs:.3f}",
    "snr": lambda r: f"{r.snr:.2f}",
    "retrieval": lambda r: f"{r.retrieval:.2f}",
    "flow": lambda r: f"{r.flow:.3f}",
    "found": lambda r: f"{r.found:.2f}",
    "pull of flow": lambda r: f"{r.flow_pull:.3f}",
    "of encoder": lambda r: f"{r.encoder_pull:.3f}",
    "push of kl": lambda r: f"{r.kl_push:.3f}",
}


def table(results: list[Result]) -> str:
    """Markdown, a training a row."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---:" for _ in COLUMNS) + " |"]
    lines += ["| " + " | ".join(cell(r) for cell in COLUMNS.values()) + " |" for r in results]
    return "\n".join(lines)


def claims(results: list[Result]) -> dict[str, bool]:
    """What the theory says and what follows for a rule, each with the numbers that decide it."""
    at_paper = [r for r in results if r.multiple == 1.0]
    balance = [(r.flow_pull + r.encoder_pull) / r.kl_push for r in results]
    own_pull = [r.flow_pull / r.flow for r in at_paper]
    held = {
        f"at every weight the pulls on sigma equal the KL's push within 15 % (found {span(balance)})": all(
            abs(ratio - 1) < 0.15 for ratio in balance
        ),
        f"at the paper's weight the flow's pull is the flow loss itself within 15 % (found {span(own_pull)})": all(
            abs(ratio - 1) < 0.15 for ratio in own_pull
        ),
    }
    for multiple in sorted(MULTIPLES):
        sigmas = [r.sigma for r in results if r.multiple == multiple]
        if len(sigmas) > 1:
            what = f"at {multiple:g} x the paper's weight per dimension, sigma is the same at all latents"
            held[f"{what} within a factor of 1.5 (found {span(sigmas)})"] = max(sigmas) < 1.5 * min(sigmas)
    return held


def span(values: list[float]) -> str:
    """Least and largest."""
    return f"{min(values):.3f} to {max(values):.3f}"


def plot(results: list[Result], file: Path) -> None:
    """What happens to the source, against the weight per sum (above) and per dimension (below)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = {"sigma": "sigma", "snr": "field SNR", "flow": "held-out flow loss", "found": "found"}
    figure, axes = plt.subplots(2, len(panels), figsize=(3.6 * len(panels), 6.4), squeeze=False)
    for row, (x_label, scaled) in enumerate(
        {"weight of the sum": False, "weight x dimensions": True}.items()
    ):
        for axis, (name, label) in zip(axes[row], panels.items(), strict=True):
            for latent in LATENTS:
                own = [r for r in results if r.latent == latent.shape]
                sizes = math.prod(latent.shape) if scaled else 1
                axis.plot(
                    [r.kl_weight * sizes for r in own],
                    [getattr(r, name) for r in own],
                    marker="o",
                    label=f"{'x'.join(map(str, latent.shape))} = {math.prod(latent.shape):,}",
                )
            axis.axvline(PAPER if scaled else 1e-4, color="grey", linestyle=":")
            axis.set(xscale="log", xlabel=x_label, ylabel=label)
            if name == "snr":
                axis.set_yscale("log")
            elif name == "found":
                axis.set_ylim(0, 1)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(
        "Dotted: the paper's 1e-4, as a weight of the sum (above) and per dimension of 4 x 32 x 32 (below)"
    )
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def save(results: list[Result], options: argparse.Namespace) -> str:
    """JSON, Markdown and picture of what is there so far; the Markdown's text."""
    results = sorted(results, key=lambda r: (math.prod(r.latent), r.multiple))
    setting: dict[str, Any] = {
        "command": f"benchmarks/papers/kl_weight.py --steps {options.steps} --seed {options.seed}",
        "paper": "CrossFlow app. A: lambda = 1e-4 at 4 x 32 x 32; the reduction of the KL is not stated",
        "device": f"CPU, {torch.get_num_threads()} thread, {platform.machine()}",
        "torch": torch.__version__,
        "commit": commit(),
        "held_out": HELD_OUT,
        "seconds": round(sum(r.seconds for r in results)),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    report = setting | {"results": [asdict(r) for r in results]}
    (options.out / "kl_weight.json").write_text(json.dumps(report, indent=1) + "\n")
    text = (
        f"# The KL weight against the latent's size\n\n`{setting['command']}`, {setting['device']}, torch "
        f"{torch.__version__}, commit {setting['commit']}, {setting['seconds']} s (the machine had other work). "
        f"One seed, {options.steps} steps of {BATCH} pairs, {HELD_OUT} held-out pairs.\n\n{table(results)}\n\n"
        "Columns: see the first lines of the script. 'x paper': the weight per dimension over the paper's 0.41.\n\n"
        + "\n".join(
            f"- {'holds' if held else 'does NOT hold'}: {claim}" for claim, held in claims(results).items()
        )
        + "\n"
    )
    (options.out / "kl_weight.md").write_text(text)
    plot(results, options.out / "kl_weight.png")
    return text


def earlier(options: argparse.Namespace) -> list[Result]:
    """Results of an interrupted call with the same steps and seed."""
    file = options.out / "kl_weight.json"
    report = json.loads(file.read_text()) if file.exists() else {"command": "", "results": []}
    if not report["command"].endswith(f"--steps {options.steps} --seed {options.seed}"):
        return []
    return [Result(**(row | {"latent": tuple(row["latent"])})) for row in report["results"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kl_weight"))
    options = parser.parse_args()
    results = earlier(options)
    done = {(r.latent, r.multiple) for r in results}
    for (
        multiple
    ) in MULTIPLES:  # all latents at the paper's weight first, so that half a study already compares
        for latent in LATENTS:
            if (latent.shape, multiple) not in done:
                results.append(run(latent, multiple, options.steps, options.seed))
                save(results, options)
    print(save(results, options))


if __name__ == "__main__":
    main()
