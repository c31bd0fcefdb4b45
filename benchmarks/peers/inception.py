"""Pictures per second through the FID network: ours and torch-fidelity's, with the same weights.

    uv run --no-sync python benchmarks/peers/inception.py --repeats 5 --out benchmarks/results/inception.json

uint8 pictures of 256 x 256 to 2048 features, resize included (protocol torch-fidelity); weights are drawn, which
changes no time. That both give the same features is checked first. `as published` is our network before it is
prepared for inference, `compiled` after torch.compile (with --compile; its first call is not counted). CPU time of
one thread; the ways take turns within each repeat and the ratio is taken there. Compare ratios.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from cf_eval.images.features import NetworkFeatures, inception_features
from cf_eval.images.inception_net import InceptionNet, load_inception
from cf_eval.images.weights import WeightFile, file_sha256
from record import write_record
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from turns import Task, in_turns, median_ms, median_ratio

PEER = "torch-fidelity"
LARGEST_ERROR = 1e-5  # of the features, relative to the largest: float32 in another order


@dataclass(frozen=True)
class Row:
    """One way: its rate, and how many times the peer's that is."""

    way: str
    batch: int
    images_per_s: float
    rate_ratio: float
    largest_error: float


def drawn_weights(path: Path) -> WeightFile:
    """A file of the published layout."""
    torch.manual_seed(0)  # a script of its own: the layers draw from the global generator
    network = InceptionNet()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return WeightFile("drawn weights", file_sha256(path), path.stat().st_size)


def ways(path: Path, expected: WeightFile, with_compile: bool) -> dict[str, NetworkFeatures]:
    """Ours, by name."""
    features = inception_features(path, PEER, expected=expected)
    found = {"cf_eval": features}
    found["cf_eval as published"] = replace(features, network=load_inception(path, expected=expected)[0])
    return found | ({"cf_eval compiled": features.compiled()} if with_compile else {})


def measure(options: argparse.Namespace) -> list[Row]:
    """All ways in turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inception.pth"
        expected = drawn_weights(path)
        peer = FeatureExtractorInceptionV3(PEER, ["2048"], str(path))
        ours = ways(path, expected, options.compile)
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (options.batch, 3, 256, 256), generator=draw).to(torch.uint8)
    errors = {PEER: 0.0}
    with torch.no_grad():
        (wanted,) = peer(images)
        for name, features in ours.items():
            errors[name] = float((features(images) - wanted).abs().max() / wanted.abs().max())
            if errors[name] > LARGEST_ERROR:
                raise RuntimeError(f"{name} is off by {errors[name]:.1e}: not the same network")
        tasks: dict[str, Task] = {PEER: lambda: peer(images)}
        for name, features in ours.items():
            tasks[name] = lambda features=features: features(images)
        turns = in_turns(tasks, options.repeats)
    return [
        Row(
            name,
            options.batch,
            1e3 * options.batch / median_ms(turns, name),
            median_ratio(turns, PEER, name),
            errors[name],
        )
        for name in tasks
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options)
    for row in rows:
        print(
            f"{row.way:22} {row.images_per_s:6.2f} images/s   {row.rate_ratio:5.2f} x {PEER}'s rate   "
            f"error {row.largest_error:.0e}"
        )
    words = "inception.py" + " --compile" * options.compile
    settings = {"repeats": options.repeats}
    write_record(options.out, words, settings, {"rows": rows}, ("torch", "torch-fidelity"))


if __name__ == "__main__":
    main()
