"""The lines of tables whose scripts came first and keep JSON of their own: Flow Matching's, and CrossFlow's Table 9."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cf.reports.line import Line
from cf.reports.printed import printed
from cf.spec import NOT_REPRODUCED, REPRODUCED, UNDECIDED

OT = "FM w/ OT"
LARGE = "needs ImageNet at 128 px and Inception weights"


def older_lines(results: Path) -> list[Line]:
    """Flow Matching's tables in the paper's order; Table 3 there is a list of settings, with nothing to reproduce."""
    return [
        _fm_table_1(results / "fm_table1" / "tiny.json"),
        _fm_imagenet(),
        _fm_table_2(),
        _fm_checkerboard(results / "fm_checkerboard" / "tiny.json"),
    ]


def _fm_table_1(file: Path) -> Line:
    found = json.loads(file.read_text())
    ours = _by_method(found["results"], "distance")
    paper = {name: values["cifar10_fid"] for name, values in printed("fm_table1").items()}
    return Line(
        "[Flow Matching Tables 1 (left) and 4, Fig. 5, 7, 10](results/fm_table1/tiny.md)",
        "FID on CIFAR-10: " + "; ".join(f"{name} {value}" for name, value in paper.items()),
        "Fréchet distance in a classifier of Fashion-MNIST: "
        + "; ".join(f"{k} {v}" for k, v in ours.items()),
        f"tiny, {len({it['seed'] for it in found['results']})} seeds",
        _counted(found["claims"]),
        "`papers/fm_table1.py --scale tiny --data FOLDER`; the paper's own needs CIFAR-10, ImageNet and GPUs: "
        "`papers/fm_table1.py --scale paper --data uoft-cs/cifar10`",
        found["device"],
        _claims(found["claims"]),
    )


def _fm_imagenet() -> Line:
    ours = printed("fm_table1_imagenet128")[OT]
    return Line(
        "Flow Matching Table 1 (right)",
        f"{OT}: NLL {ours['nll']}, FID {ours['fid']}",
        LARGE,
        "paper only",
        "not decidable: one model, on 32 GPUs",
        "`papers/fm_table1.py --scale paper --data FOLDER`, with Table 3's last column for the network",
        "not run",
    )


def _fm_table_2() -> Line:
    rows = printed("fm_table2")
    return Line(
        "Flow Matching Table 2",
        "FID: " + "; ".join(f"{name} {values['fid']}" for name, values in rows.items()),
        "the rows of CrossFlow Table 6, which prints them again",
        "see there",
        "see there",
        "`papers/cf_table6.py`",
        "see there",
    )


def _fm_checkerboard(file: Path) -> Line:
    found = json.loads(file.read_text())
    ours = {
        name: f"{statistics.mean(values):.3f}"
        for name, values in _grouped(found["results"], lambda it: it["distance_by_nfe"]["10"]).items()
    }
    return Line(
        "[Flow Matching Fig. 4 and 9](results/fm_checkerboard/tiny.md)",
        "pictures and words, see the claims",
        "distance of samples after 10 evaluations: " + "; ".join(f"{k} {v}" for k, v in ours.items()),
        f"tiny, {len({it['seed'] for it in found['results']})} seeds",
        _counted(found["claims"]),
        "`papers/fm_checkerboard.py --scale tiny`",
        found["device"],
        _claims(found["claims"]),
    )


def table_9(results: Path) -> Line:
    """CrossFlow's, with MiniLM's embeddings: cosine of tokens through the latent and back."""
    found = json.loads((results / "table9" / "table9.json").read_text())
    paper = {name: values["recon_accuracy"] for name, values in printed("cf_table9").items()}
    cosine = {
        setting: {name: row["cosine"] for name, row in values["rows"].items()}
        for setting, values in found["settings"].items()
    }
    values = "; ".join(
        f"{s}: {name} {value:.2f}" for s, rows in cosine.items() for name, value in rows.items()
    )
    lost = {setting: rows["Encoder"] - rows["Variational Encoder"] for setting, rows in cosine.items()}
    evidence = "Encoder minus Variational Encoder: " + "; ".join(
        f"{s} {gap:+.2f} %" for s, gap in lost.items()
    )
    return Line(
        "[CrossFlow Table 9](results/table9/report.md)",
        "cosine %: "
        + "; ".join(f"{name.removesuffix(' (1x1024)')} {value}" for name, value in paper.items()),
        f"cosine %: {values}",
        "tiny, 1 seed",
        "1 not decidable",
        "`papers/table9.py --captions FILE`, COCO's captions; the paper's own needs CLIP's weights",
        found["device"],
        [
            (
                "a Variational Encoder loses little against an encoder (0.59 %)",
                UNDECIDED,
                f"{evidence}; one seed",
            )
        ],
    )


def _by_method(results: Sequence[Mapping[str, Any]], number: str) -> dict[str, str]:
    groups = _grouped(results, lambda it: it[number])
    return {name: f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for name, v in groups.items()}


def _grouped(results: Sequence[Mapping[str, Any]], number: Any) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for result in results:
        groups.setdefault(result["method"], []).append(number(result))
    return groups


def _claims(held: Mapping[str, bool | None]) -> list[tuple[str, str, str]]:
    """By the rule of those scripts: reproduced is what holds for every seed."""
    words = {
        True: (REPRODUCED, "holds for every seed"),
        False: (NOT_REPRODUCED, "does not hold for every seed"),
        None: (UNDECIDED, "not all trainings are there"),
    }
    return [(claim, *words[value]) for claim, value in held.items()]


def _counted(held: Mapping[str, bool | None]) -> str:
    values = list(held.values())
    return f"{values.count(True)} reproduced, {values.count(False)} not reproduced"
