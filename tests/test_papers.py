"""The scripts that reproduce the papers: what they read, how they judge, and that an interrupted one goes on."""

import gzip
import json
import struct
import sys
from pathlib import Path

import pytest
import torch

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"
sys.path.insert(0, str(PAPERS))

import fm_table1  # noqa: E402
from fm_images import Images, dequantised, read_images, resized  # noqa: E402
from fm_measures import nfe_for_error  # noqa: E402
from fm_methods import METHODS  # noqa: E402
from fm_table1_report import OT, PAPER, claims, write_report  # noqa: E402
from fm_training import Plan, train  # noqa: E402


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- pictures


def write_idx(file: Path, values: torch.Tensor, zipped: bool) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with (gzip.open if zipped else open)(file, "wb") as out:
        out.write(head + values.numpy().tobytes())


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """10 training and 4 test pictures of 4 x 4 bytes, the test part not zipped."""
    for part, n, zipped in (("train", 10, True), ("t10k", 4, False)):
        pixels = torch.randint(256, (n, 4, 4), dtype=torch.uint8, generator=dice(n))
        ending = ".gz" if zipped else ""
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{ending}", pixels, zipped)
        write_idx(
            tmp_path / f"{part}-labels-idx1-ubyte{ending}", torch.arange(n, dtype=torch.uint8) % 3, zipped
        )
    return tmp_path


def test_idx_files_are_read_byte_for_byte(idx_folder):
    train_part, test_part = (read_images(str(idx_folder), part, 4) for part in ("train", "test"))
    wanted = torch.randint(256, (10, 4, 4), dtype=torch.uint8, generator=dice(10))
    assert torch.equal(train_part.pixels[:, 0], wanted)
    assert train_part.labels.tolist() == [0, 1, 2] * 3 + [0]
    assert test_part.pixels.shape == (4, 1, 4, 4)


def test_a_missing_part_and_a_file_that_is_not_idx_are_named(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(SystemExit, match="t10k-labels-idx1-ubyte"):
        read_images(str(idx_folder), "test", 4)
    (idx_folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"no idx file"))
    with pytest.raises(SystemExit, match="not an idx file"):
        read_images(str(idx_folder), "train", 4)


def test_pictures_become_smaller_by_means_and_larger_by_a_border():
    pixels = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert resized(pixels, 2).flatten().tolist() == [2, 4, 10, 12]  # 2.5, 4.5, 10.5, 12.5: half to even
    larger = resized(pixels, 8)
    assert torch.equal(larger[..., 2:6, 2:6], pixels)
    assert larger.sum() == pixels.sum()
    with pytest.raises(SystemExit, match="4 x 4 to 3 x 3"):
        resized(pixels, 3)


def test_dequantised_bytes_fill_minus_one_to_one_and_lose_nothing():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    y = dequantised(pixels, dice())
    assert y.min() >= -1
    assert y.max() < 1
    assert torch.equal(((y + 1) * 128).floor().byte(), pixels)


# ------------------------------------------------------------------------------------------------- judging


def test_the_evaluations_for_an_error_follow_a_power_law_exactly():
    errors = {n: 3.0 * n**-2.5 for n in (4, 8, 16, 32)}
    assert nfe_for_error(errors, 3.0 * 11.0**-2.5) == pytest.approx(11.0)
    assert nfe_for_error(errors, 1.0) == 4.0
    assert nfe_for_error(errors, 1e-9) == float("inf")


def results(best: str = OT, seeds: int = 2) -> list[dict]:
    """As the JSON file has them: every figure of `best` is below everyone's, and score matching's NFE drift."""
    found = []
    for seed in range(seeds):
        for place, name in enumerate(METHODS):
            level = 0.5 if name == best else 1.0 + 0.1 * place
            drift = 3.0 if name == "Score Matching" else 1.1
            found.append(
                {
                    "method": name, "seed": seed, "bits_1": level, "bits_k": level, "distance": level,
                    "nfe": 100 * level, "probe_nats": 0.1,
                    "distance_by_nfe": {"4": 2 * level, "8": level},
                    "error_by_nfe": {"4": 0.1 * level, "8": 1e-4 * level},
                    "distance_by_step": {"10": 2 * level, "20": level},
                    "nfe_by_step": {"10": 100 * level, "20": 100 * level * drift},
                }
            )  # fmt: skip
    return found


def test_claims_hold_where_ot_is_best_for_every_seed_and_nowhere_else():
    assert all(claims(results()).values())
    held = list(claims(results(best="DDPM")).values())
    assert not any(held[:-1])  # the last one is of drift, not of rank
    one_seed_differs = results(seeds=1) + [r | {"seed": 1} for r in results(best="DDPM", seeds=1)]
    assert not any(list(claims(one_seed_differs).values())[:-1])
    assert set(claims(results()[:3]).values()) == {None}


def test_the_papers_rows_are_those_it_prints():
    """Table 1 (FID, NFE) and table 4 (K = 1, K = 50) of Lipman et al., CIFAR-10."""
    assert set(PAPER) == set(METHODS)
    assert PAPER["FM w/ OT"] == (3.11, 2.99, 6.35, 142)
    for column in zip(*PAPER.values(), strict=True):
        assert min(column) == column[-1]  # OT, the last row, is best in every column


def test_a_report_has_every_row_beside_the_papers_and_calls_nothing_fid(tmp_path):
    setting = {
        "command": "c", "device": "d", "torch": "t", "data": "pictures", "parameters": 7, "feature_space": "means",
        "distance_of_true_pictures": 0.1, "scale": {
            "importance": 3, "plan": {"steps": 20}, "batch": 2, "drawn_by": 100, "samples": 384, "nfe_samples": 16,
            "likelihood_images": 5, "likelihood_tolerance": 1e-3,
        },
    }  # fmt: skip
    text = write_report(tmp_path / "tiny.json", setting, results())
    assert (
        "| FM w/ OT | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.50 ± 0.00 | 50 ± 0 | 3.11 | 2.99 | 6.35 | 142 |"
        in text
    )
    assert "not an FID" in text
    assert "384 samples by midpoint with 100 evaluations. NFE: 16 samples" in text
    assert "Bits: 5 test pictures at 0.001." in text
    assert "| method | 4 | 8 |" in text
    assert text.count("- reproduced") == 7
    assert (tmp_path / "tiny.md").read_text() == text
    assert (tmp_path / "tiny.png").stat().st_size > 1_000
    assert len(json.loads((tmp_path / "tiny.json").read_text())["results"]) == 10
    assert not (tmp_path / "tiny.part").exists()


# ------------------------------------------------------------------------------------------------- training


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([0.1, -0.2]))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.a * x + t[:, None]


def fitted(steps: int, keep: Path | None = None, stop: int = 10**9) -> torch.Tensor:
    """The weights after training that dies at `stop`."""
    net, generator = Line(), dice(3)

    def watch(step: int, loss: torch.Tensor) -> None:
        if step == stop:
            raise KeyboardInterrupt

    def draw(generator: torch.Generator) -> torch.Tensor:
        return torch.randn(16, 2, generator=generator)

    plan = Plan(steps, lr=0.05, warmup=3)
    train(METHODS[OT], net, draw, plan, generator, watch, keep=keep, keep_every=4)
    return net.a.detach()


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    whole = fitted(15)
    keep = tmp_path / "a.state"
    with pytest.raises(KeyboardInterrupt):
        fitted(15, keep, stop=9)
    assert torch.equal(fitted(15, keep), whole)
    assert not torch.equal(fitted(11), whole)


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 0.5), ("linear", 0.5)])
def test_a_schedule_warms_up_and_ends_at_nothing(decay, middle):
    plan = Plan(steps=110, lr=1.0, warmup=10, decay=decay)
    assert [plan.factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert plan.factor(60) == pytest.approx(middle)
    assert plan.factor(110) == pytest.approx(0)
    rates = [plan.factor(step) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.slow
def test_table_1_runs_from_files_to_report_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from dataclasses import replace

    tiny = fm_table1.SCALES["tiny"]
    small = replace(
        tiny, plan=Plan(steps=8, lr=1e-3, warmup=2), batch=8, likelihood_images=2, importance=2, samples=8,
        error_samples=2, curve_samples=4, nfe_samples=2, nfes=(4, 8), drawn_by=8, checkpoints=2, keep_every=3,
    )  # fmt: skip
    monkeypatch.setitem(fm_table1.SCALES, "tiny", small)
    pixels = torch.randint(256, (64, 1, 14, 14), dtype=torch.uint8, generator=dice())
    parts = Images(pixels, torch.arange(64) % 2)
    monkeypatch.setattr(fm_table1, "read_images", lambda *_: parts)
    arguments = ["fm_table1.py", "--data", "x", "--seeds", "1", "--out", str(tmp_path), "--methods"]
    monkeypatch.setattr(sys, "argv", [*arguments, "FM w/ OT"])
    with monkeypatch.context() as broken:
        broken.setattr(fm_table1, "measure_end", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fm_table1.main()
    assert list(tmp_path.glob("*.state"))  # of step 6 of 8
    fm_table1.main()
    first = json.loads((tmp_path / "tiny.json").read_text())
    monkeypatch.setattr(sys, "argv", [*arguments, "FM w/ OT", "FM w/ Diffusion"])
    fm_table1.main()
    both = json.loads((tmp_path / "tiny.json").read_text())
    assert both["results"][0] == first["results"][0]  # timings and all: it was not trained again
    assert [r["method"] for r in both["results"]] == ["FM w/ OT", "FM w/ Diffusion"]
    assert {"4", "8"} == set(both["results"][0]["error_by_nfe"])
    # step 4 was measured before the interruption
    assert {"4", "8"} == set(both["results"][0]["distance_by_step"])
    assert not [*tmp_path.glob("*.state"), *tmp_path.glob("*.curves")]
