"""Lipman et al. table 1 and 4, fig. 5, 7 and 10: five trainings of one U-Net, small and honest.

    uv run python benchmarks/papers/fm_table1.py --data FOLDER --scale tiny
    torchrun --nproc-per-node 8 benchmarks/papers/fm_table1.py --data uoft-cs/cifar10 --scale paper

Data: Fashion-MNIST's idx files in FOLDER, or any name for `datasets` (with classes, which the feature space is learned
from). tiny: means of 2 x 2 pixels, 14 px, a part of the pictures, minutes on a CPU. small: 28 px with a border of 2,
for one GPU. paper: table 3's CIFAR-10 column.

bits      per dimension, on test pictures, dopri5 from 1 to 0, Hutchinson with 2 probes, K = 1 and K importance samples;
          at 1e-5, at scale tiny at 1e-3, where the probes' own error is far larger
distance  Fréchet distance of samples to the test pictures in the feature space that is named; not an FID. Samples are
          dopri5's at 1e-5, at scale tiny midpoint's with 100 evaluations
NFE       of dopri5 at 1e-5 with torchdiffeq's error weights and step rule, a chunk of samples at a time

Every method has the same network, initial weights, batches, number of steps and learning rate.

A training that is finished is not done again: the JSON file is written after each one and read first.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from fm_features import Classifier, train_features
from fm_images import Images, dequantised, read_images
from fm_measures import Field, bits, distance, errors_by_nfe
from fm_methods import METHODS, Method
from fm_ranks import Ranks, join
from fm_table1_report import write_report
from fm_table1_scales import SCALES, Scale
from fm_training import train
from fm_unet import parameters, seeded_unet
from torch import Tensor

CURVE_NFE = 32  # the paper draws figure 5 by dopri5, which costs ten times as much


@dataclass
class Result:
    """One training and all that is measured of it; the curves by training step, the rest at the end."""

    method: str
    seed: int
    bits_1: float = 0.0
    bits_k: float = 0.0
    probe_nats: float = 0.0
    distance: float = 0.0
    nfe: float = 0.0
    distance_by_nfe: dict[int, float] = field(default_factory=dict)
    error_by_nfe: dict[int, float] = field(default_factory=dict)
    distance_by_step: dict[int, float] = field(default_factory=dict)
    nfe_by_step: dict[int, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    measure_seconds: float = 0.0


@dataclass(frozen=True)
class Judge:
    """What every training is measured against."""

    scale: Scale
    train: Images
    test: Images
    features: Classifier
    space: str
    ranks: Ranks

    def noise(self, n: int, seed: int) -> Tensor:
        """The same for every method; this process's share."""
        shape = (n, *self.test.pixels.shape[1:])
        return self.ranks.share(torch.randn(shape, generator=torch.Generator().manual_seed(1_000 + seed)))

    def few_noise(self, seed: int) -> Tensor:
        """To count dopri5's evaluations with."""
        return self.noise(self.scale.nfe_samples, seed)

    def distance(self, drawn: Tensor) -> float:
        """Of all processes' samples."""
        whole = self.ranks.gathered(drawn)
        return distance(self.features, self.space, self.test.pixels, whole.to(self.ranks.device))


def run(name: str, method: Method, judge: Judge, seed: int, kept: Path) -> Result:
    """Train one method and measure it."""
    scale, ranks = judge.scale, judge.ranks
    channels = judge.train.pixels.shape[1]
    net = seeded_unet(scale.size, channels, scale.side, seed, ranks.device)
    generator = torch.Generator().manual_seed(seed * 1_009 + ranks.mine)
    result, begin, spent = taken_up(name, seed, kept), time.monotonic(), 0.0
    marks = {scale.plan.steps * (i + 1) // scale.checkpoints - 1 for i in range(scale.checkpoints)}

    def draw(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(judge.train.pixels), (scale.batch // ranks.count,), generator=generator)
        return dequantised(judge.train.pixels[rows], generator).to(ranks.device)

    def watch(step: int, loss: Tensor) -> None:
        nonlocal spent
        if step % 50 == 0:
            say(
                ranks,
                f"{name}, seed {seed}",
                step,
                scale.plan.steps,
                time.monotonic() - begin - spent,
                f"loss {loss.item():.4f}",
            )
        if step in marks:
            paused = time.monotonic()
            measure_curves(result, step + 1, as_field(method, net, scale), judge, seed)
            so_far(kept).write_text(json.dumps(asdict(result)))
            spent += time.monotonic() - paused

    wrapped = ranks.in_step(net)  # for training alone: measuring takes gradients by x, not by the weights
    train(method, wrapped, draw, scale.plan, generator, watch, keep=kept, keep_every=scale.keep_every)
    result.train_seconds = time.monotonic() - begin - spent
    begin = time.monotonic()
    measure_end(result, as_field(method, net, scale), judge, seed)
    result.measure_seconds = spent + time.monotonic() - begin
    return result


def so_far(kept: Path) -> Path:
    """Where the curves of an unfinished training wait."""
    return kept.with_suffix(".curves")


def taken_up(name: str, seed: int, kept: Path) -> Result:
    """A new result, or that of a training which was interrupted, with the curves it had."""
    if not (kept.is_file() and so_far(kept).is_file()):
        return Result(name, seed)
    found = json.loads(so_far(kept).read_text())
    curves = {
        part: {int(step): value for step, value in found[part].items()}
        for part in ("distance_by_step", "nfe_by_step")
    }
    return Result(name, seed, **curves)


def as_field(method: Method, net: torch.nn.Module, scale: Scale) -> Field:
    """The velocity to measure."""
    return Field(method.field(net), method.t_max, scale.chunk)


@torch.no_grad()
def measure_curves(result: Result, step: int, field: Field, judge: Judge, seed: int) -> None:
    """Figure 5 and 10 during training: distance by midpoint with CURVE_NFE, dopri5's evaluations for fewer samples."""
    noise = judge.noise(judge.scale.curve_samples, seed)
    result.distance_by_step[step] = judge.distance(field.sample(noise, CURVE_NFE))
    result.nfe_by_step[step] = judge.ranks.mean(field.sample_adaptively(judge.few_noise(seed))[1])


@torch.no_grad()
def measure_end(result: Result, field: Field, judge: Judge, seed: int) -> None:
    """Table 1 and 4, figure 7."""
    scale, ranks = judge.scale, judge.ranks
    result.nfe = ranks.mean(field.sample_adaptively(judge.few_noise(seed))[1])
    noise = judge.noise(scale.samples, seed)
    drawn = field.sample(noise, scale.drawn_by) if scale.drawn_by else field.sample_adaptively(noise)[0]
    result.distance = judge.distance(drawn)
    for n in scale.nfes:
        result.distance_by_nfe[n] = judge.distance(field.sample(noise, n))
    errors = errors_by_nfe(field, judge.noise(scale.error_samples, seed), scale.nfes)
    result.error_by_nfe = {n: ranks.mean(error) for n, error in errors.items()}
    pixels = ranks.share(judge.test.first(scale.likelihood_images).pixels)
    generator = torch.Generator().manual_seed(2_000 + seed * 1_009 + ranks.mine)
    measured = bits(field, pixels, scale.importance, scale.likelihood_tolerance, generator)
    result.bits_1, result.bits_k, result.probe_nats = (ranks.gathered(it).mean().item() for it in measured)


def say(ranks: Ranks, name: str, step: int, steps: int, seconds: float, more: str = "") -> None:
    """A live line: rate, time left, loss."""
    if ranks.speaks:
        rate = (step + 1) / max(seconds, 1e-9)
        left = (steps - step - 1) / rate
        print(
            f"\r{name}: {step + 1}/{steps}  {rate:.1f} steps/s  {left:.0f} s left  {more}   ",
            end="",
            file=sys.stderr,
            flush=True,
        )


def prepared(data: str, scale: Scale, ranks: Ranks) -> Judge:
    """The pictures and the space they are compared in."""
    train_part = read_images(data, "train", scale.side).first(scale.train_images)
    test_part = read_images(data, "test", scale.side).first(scale.test_images)
    features, space = train_features(train_part, test_part, ranks.device)
    return Judge(scale, train_part, test_part, features, space, ranks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a folder of idx files, or a name for `datasets`")
    parser.add_argument("--name", default="Fashion-MNIST", help="what the data is called in the report")
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fm_table1"))
    options = parser.parse_args()
    ranks, scale = join(), SCALES[options.scale]
    judge = prepared(options.data, scale, ranks)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.scale}.json"
    done = (
        {(r["method"], r["seed"]): r for r in json.loads(file.read_text())["results"]}
        if file.is_file()
        else {}
    )
    size = parameters(
        seeded_unet(scale.size, judge.train.pixels.shape[1], scale.side, 0, torch.device("cpu"))
    )
    where = (
        torch.cuda.get_device_name()
        if ranks.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    setting = {
        "command": f"benchmarks/papers/fm_table1.py --scale {options.scale} --seeds {options.seeds}",
        "data": f"{options.name}, {len(judge.train.pixels)} training and {len(judge.test.pixels)} test pictures",
        "device": where if ranks.count == 1 else f"{ranks.count} x {where}",
        "torch": torch.__version__,
        "parameters": size,
        "feature_space": judge.space,
        "distance_of_true_pictures": judge.distance(
            ranks.share(judge.train.first(scale.samples).pixels).float() / 128 - 1 + 1 / 256
        ),
        "scale": asdict(scale),
    }
    for seed in range(options.seeds):
        for name in options.methods:
            if (name, seed) in done:
                continue
            slug = f"{options.scale}-{name}-{seed}-{ranks.mine}".replace(" ", "-").replace("/", "")
            kept = options.out / f"{slug}.state"  # each process has draws of its own to go on with
            result = run(name, METHODS[name], judge, seed, kept)
            done[name, seed] = json.loads(json.dumps(asdict(result)))
            if ranks.speaks:
                print(f"\r{name}, seed {seed}: {summary(result)}", file=sys.stderr)
                write_report(file, setting, list(done.values()))
            kept.unlink(missing_ok=True)
            so_far(kept).unlink(missing_ok=True)
    if ranks.speaks:
        print(write_report(file, setting, list(done.values())))


def summary(r: Result) -> str:
    """One line a training."""
    return (
        f"bits {r.bits_1:.3f} (K = 1) {r.bits_k:.3f}, distance {r.distance:.2f}, NFE {r.nfe:.0f}; "
        f"{r.train_seconds:.0f} s to train, {r.measure_seconds:.0f} s to measure"
    )


if __name__ == "__main__":
    main()
