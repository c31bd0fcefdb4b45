"""All speed figures of cf-eval in one run: captions, the Fréchet distance, the FID network, each beside its peer.

    OMP_NUM_THREADS=1 uv run --no-sync python benchmarks/peers/metrics.py \\
        --references captions_val2017.json.gz --out benchmarks/results/metrics.json

What is compared, and how, is said in caption_metrics.py, frechet.py and inception.py, whose measurements these are.
One thread; ours and the peer take turns and the ratio is taken within each turn; medians. `asked` is the ratio that
cf-eval was built to reach. --compile also times the FID network after torch.compile. About ten minutes.
"""

import argparse
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path

import caption_metrics
import frechet
import inception
import torch
from record import write_record


@dataclass(frozen=True)
class Figure:
    """One ratio: the peer's time over ours."""

    what: str
    peer: str
    ratio: float
    asked: float


def of_captions(options: Namespace) -> tuple[list[Figure], list[dict[str, object]]]:
    """The scorers on 5,000 x (1 + 5) captions, and the tokenizer on 5,000."""
    rows = caption_metrics.measure(options.references, 5000, options.repeats)
    peers = (("pycocoevalcap's scorers", 18.0), ("the Stanford jar's whole process", 1.0))
    figures = [
        Figure(row.what, peer, row.ratio, asked) for row, (peer, asked) in zip(rows, peers, strict=True)
    ]
    return figures, [asdict(row) for row in rows]


def of_distances(options: Namespace) -> tuple[list[Figure], list[dict[str, object]]]:
    """The trace from full covariances, and from 1000 samples."""
    rows = frechet.cases(
        Namespace(width=frechet.WIDTH, few=frechet.FEW, repeats=max(1, options.repeats // 3))
    )
    asked = {"full": 7.0, "few": 25.0}
    figures = [
        Figure(f"Fréchet distance, 2048-d, {row.case}", "scipy's sqrtm", row.sqrtm_ratio, asked[row.case])
        for row in rows
        if row.case in asked
    ]
    return figures, [asdict(row) for row in rows]


def of_network(options: Namespace) -> tuple[list[Figure], list[dict[str, object]]]:
    """Pictures to features."""
    rows = inception.measure(Namespace(batch=8, repeats=options.repeats, compile=options.compile))
    figures = [
        Figure(f"FID network, {row.way}", inception.PEER, row.rate_ratio, 1.0)
        for row in rows
        if row.way != inception.PEER
    ]
    return figures, [asdict(row) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--references", type=Path, required=True, help="COCO's captions_val2017.json, plain or .gz"
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures, details = [], {}
    for name, part in (("captions", of_captions), ("network", of_network), ("distances", of_distances)):
        found, details[name] = part(options)
        figures += found
        for figure in found:
            verdict = "met" if figure.ratio >= figure.asked else "not met"
            print(f"{figure.what:45} {figure.ratio:6.2f} x {figure.peer}, asked {figure.asked:g}: {verdict}")
    settings = {"repeats": options.repeats, "details": details}
    words = "metrics.py" + " --compile" * options.compile
    write_record(options.out, words, settings, {"figures": figures}, ("torch", "numpy", "scipy"))


if __name__ == "__main__":
    main()
