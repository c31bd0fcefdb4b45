"""The report of fm_table1: ours beside the paper's rows, its claims one by one, curves."""

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fm_measures import nfe_for_error
from fm_methods import METHODS
from fm_tables import Held, curve_table, spread, verdicts

OT = "FM w/ OT"
DIFFUSION = ("DDPM", "Score Matching", "ScoreFlow", "FM w/ Diffusion")
# Lipman et al. table 1 and 4, CIFAR-10: NLL at K = 1 and 50, FID, NFE
PAPER = {
    "DDPM": (3.24, 3.12, 7.48, 274),
    "Score Matching": (3.28, 3.16, 19.94, 242),
    "ScoreFlow": (3.21, 3.09, 20.78, 428),
    "FM w/ Diffusion": (3.23, 3.10, 8.06, 183),
    "FM w/ OT": (3.11, 2.99, 6.35, 142),
}
WANTED_ERROR = 1e-3  # per pixel on [-1, 1], squared; our choice

Results = list[dict[str, Any]]


def write_report(file: Path, setting: dict[str, Any], results: Results) -> str:
    """JSON (moved into place whole), Markdown and plot; returns the Markdown."""
    held = claims(results)
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps({**setting, "claims": held, "results": results}, indent=1) + "\n")
    os.replace(beside, file)
    seeds = sorted({r["seed"] for r in results})
    k = setting["scale"]["importance"]
    text = "\n".join(
        [
            f"# Table 1 of Flow Matching, scale `{file.stem}`",
            "",
            f"`{setting['command']}`, {setting['device']}, torch {setting['torch']}. {setting['data']}. One U-Net of "
            f"{setting['parameters']:,} parameters, {setting['scale']['plan']['steps']:,} steps of "
            f"{setting['scale']['batch']}. {len(seeds)} seeds: mean ± standard deviation.",
            "",
            f"distance: Fréchet distance, {setting['feature_space']}; not an FID. As many true training pictures: "
            f"{setting['distance_of_true_pictures']:.2f}. {how_measured(setting['scale'])} The paper's columns are "
            "CIFAR-10 with a large U-Net: compare the order of the rows, not the numbers.",
            "",
            main_table(results, k),
            "",
            f"Standard error of one ln p by the probes: {spread([r['probe_nats'] for r in results])} nats (with K > 1 "
            "it makes the bits look better than they are).",
            "",
            *(
                line
                for part, (title, form) in CURVES.items()
                for line in (f"{title}:", "", curve_table(_curves(results, part), form), "")
            ),
            verdicts(held),
            "",
        ]
    )
    file.with_suffix(".md").write_text(text)
    plot(results, file.with_suffix(".png"))
    return text


def how_measured(scale: dict[str, Any]) -> str:
    """What the columns of the first table were taken from."""
    by = f"midpoint with {scale['drawn_by']} evaluations" if scale["drawn_by"] else "dopri5 at 1e-5"
    return (
        f"Distance: {scale['samples']:,} samples by {by}. NFE: {scale['nfe_samples']} samples, dopri5 at 1e-5. Bits: "
        f"{scale['likelihood_images']} test pictures at {scale['likelihood_tolerance']:g}."
    )


def main_table(results: Results, k: int) -> str:
    """Ours, then the paper's."""
    lines = [
        f"| method | bits, K = 1 | bits, K = {k} | distance | NFE | paper: NLL, K = 1 | K = 50 | FID | NFE |",
        "| --- |" + " --- |" * 8,
    ]
    for name in METHODS:
        mine = [r for r in results if r["method"] == name]
        ours = (
            [spread([r[key] for r in mine], form) for key, form in COLUMNS] if mine else ["-"] * len(COLUMNS)
        )
        lines.append(f"| {name} | " + " | ".join([*ours, *map(str, PAPER[name])]) + " |")
    return "\n".join(lines)


COLUMNS = (("bits_1", "{:.3f}"), ("bits_k", "{:.3f}"), ("distance", "{:.2f}"), ("nfe", "{:.0f}"))


CURVES = {
    "distance_by_nfe": ("Distance by evaluations (midpoint), figure 7 right", "{:.2f}"),
    "error_by_nfe": (
        "Mean squared error per pixel against 1000 evaluations (midpoint), figure 7 left",
        "{:.2e}",
    ),
    "distance_by_step": (
        "Distance during training, by steps (32 evaluations of midpoint), figure 5",
        "{:.2f}",
    ),
    "nfe_by_step": ("Evaluations of dopri5 during training, by steps, figure 10", "{:.0f}"),
}


def _curves(results: Results, part: str) -> dict[str, list[dict[int, float]]]:
    return {name: [_curve(r, part) for r in results if r["method"] == name] for name in METHODS}


def claims(results: Results) -> Held:
    """The paper's statements, each true only if it holds for every seed; None while a method is missing."""
    by = {(r["method"], r["seed"]): r for r in results}
    seeds = sorted({r["seed"] for r in results})
    complete = [s for s in seeds if all((name, s) in by for name in METHODS)]

    def best(value: Callable[[dict[str, Any]], float]) -> bool | None:
        """Whether OT's value is below everyone's, for every seed."""
        if not complete:
            return None
        return all(value(by[OT, s]) < min(value(by[name, s]) for name in DIFFUSION) for s in complete)

    def everywhere(part: str) -> bool | None:
        keys = _curve(results[0], part)
        found = [best(lambda r, key=key: _curve(r, part)[key]) for key in keys]
        return None if None in found else all(found)

    def drift(name: str, seed: int) -> float:
        """Largest over smallest number of evaluations over the second half of training."""
        late = list(_curve(by[name, seed], "nfe_by_step").values())
        late = late[len(late) // 2 - 1 :]
        return max(late) / min(late)

    shares = [
        needed(by[OT, s]) / statistics.mean(needed(by[name, s]) for name in DIFFUSION) for s in complete
    ]
    share = f"{statistics.mean(shares):.2f}" if shares else "?"
    return {
        "Table 4: FM w/ OT has the lowest negative log-likelihood (K = 1, which the probes do not bias)": best(
            lambda r: r["bits_1"]
        ),
        "Table 1: FM w/ OT has the lowest distance (the paper: FID)": best(lambda r: r["distance"]),
        "Table 1: FM w/ OT needs the fewest evaluations of dopri5": best(lambda r: r["nfe"]),
        "Figure 5: FM w/ OT has the lowest distance at every checkpoint of the training": everywhere(
            "distance_by_step"
        ),
        f"Figure 7 left: FM w/ OT reaches an error of {WANTED_ERROR:g} with fewer evaluations than all diffusion rows "
        f"(the paper: about 0.6 of theirs; here {share} of their mean)": best(needed),
        "Figure 7 right: FM w/ OT has the lowest distance at every number of evaluations up to 100": everywhere(
            "distance_by_nfe"
        ),
        "Figure 10: dopri5's evaluations drift less in the second half of training for both FM rows than for score "
        "matching": (
            all(max(drift(OT, s), drift("FM w/ Diffusion", s)) < drift("Score Matching", s) for s in complete)
            if complete
            else None
        ),
    }


def needed(result: dict[str, Any]) -> float:
    """Evaluations of midpoint for the wanted error."""
    return nfe_for_error(_curve(result, "error_by_nfe"), WANTED_ERROR)


def _curve(result: dict[str, Any], part: str) -> dict[int, float]:
    """JSON has made strings of the keys."""
    return {int(key): value for key, value in result[part].items()}


def plot(results: Results, file: Path) -> None:
    """The four curves, mean over the seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    parts = (
        ("distance_by_step", "training steps", "Fréchet distance", "fig. 5"),
        ("nfe_by_step", "training steps", "dopri5 evaluations", "fig. 10"),
        ("error_by_nfe", "evaluations (midpoint)", "squared error to 1000", "fig. 7 left"),
        ("distance_by_nfe", "evaluations (midpoint)", "Fréchet distance", "fig. 7 right"),
    )
    figure, axes = plt.subplots(1, 4, figsize=(18, 4))
    for axis, (part, x, y, title) in zip(axes, parts, strict=True):
        by_method = _curves(results, part)
        for name in METHODS:
            if curves := by_method[name]:
                keys = sorted(curves[0])
                axis.plot(
                    keys, [statistics.mean(c[key] for c in curves) for key in keys], marker="o", label=name
                )
        axis.set(xlabel=x, ylabel=y, title=title, yscale="log")
        if x.startswith("evaluations"):
            axis.set_xscale("log")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    plt.close(figure)
