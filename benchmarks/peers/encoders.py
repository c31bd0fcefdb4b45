"""TextVE against the public way, forward and backward; frozen language models against their bare networks.

    uv run --no-sync python benchmarks/peers/encoders.py --repeats 9 --out benchmarks/results/encoders.json

`released` has the weights of the public way and gives the same posterior, which is checked first: that ratio is like
for like. `paper` and `compact` are other networks for the same purpose: their ratio is what a user gets who changes
to them, all without dropout. `real` captions have the lengths of COCO's (14 of 77 tokens), `full` ones 77 of 77. One
thread, its CPU time; the ways take turns within each repeat and the ratio is taken there, so a busy machine moves all
of them. Compare ratios.
"""

import argparse
import gc
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from cf_encoders import DiagonalGaussian, TextVE, text_ve_preset
from language_rates import RATE_HEAD, language_models, rate_line
from public_text_ve import PublicTextVE
from record import write_record
from torch import Tensor, nn
from turns import Task, in_turns, median_ms, median_ratio

RELEASED = "released-256-clip"
OTHERS = ("paper-256", "compact-256")
LARGEST_ERROR = 1e-4  # of the mean in fp32, relative: rounding in another order
# how many of COCO val2017's 25,014 captions have 9, 10, ... word pieces, [CLS] and [SEP] included
SHORTEST = 9
COCO_LENGTHS = (
    83, 904, 3250, 4499, 4707, 3941, 2786, 1813, 1093, 696, 408, 265, 165, 110, 69, 61, 27, 29, 23, 27, 18, 8, 5, 3, 4,
    4, 2, 1, 3, 1, 1, 0, 1, 0, 0, 0, 2, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What one comparison is made under."""

    b: int
    precision: str  # fp32, or bf16 by autocast
    dropout: bool
    captions: str  # real or full

    @property
    def autocast(self) -> bool:
        return self.precision == "bf16"


@dataclass(frozen=True)
class Row:
    """Forward and backward of an encoder, and how much more time the public way takes."""

    encoder: str
    b: int
    precision: str
    dropout: bool
    captions: str
    ms: float
    public_ms: float
    ratio: float


# -------------------------------------------------------------------------------------------- the text encoder


def features(setting: Setting, n: int, width: int) -> tuple[Tensor, Tensor]:
    """Random tokens, and a mask of the lengths asked for."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(setting.b, n, width, generator=generator)
    if setting.captions == "full":
        return tokens, torch.ones(setting.b, n, dtype=torch.bool)
    shares = torch.tensor(COCO_LENGTHS, dtype=torch.float64)
    lengths = SHORTEST + torch.multinomial(shares, setting.b, replacement=True, generator=generator)
    return tokens, torch.arange(n) < lengths[:, None]


def moments(encoder: nn.Module, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """mean and logvar of either way."""
    out = encoder(*given)
    return (out.mean, out.logvar) if isinstance(out, DiagonalGaussian) else out


def step(encoder: nn.Module, given: tuple[Tensor, Tensor], setting: Setting) -> Task:
    """Forward, and backward of a function of both moments; the tokens are frozen, so no gradient goes there."""

    def task() -> None:
        encoder.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast):
            mean, logvar = moments(encoder, given)
        (mean.square().mean() + (logvar - 1).square().mean()).backward()

    return task


@torch.no_grad()
def check(released: TextVE, public: PublicTextVE, given: tuple[Tensor, Tensor]) -> None:
    """ArithmeticError unless both ways give one posterior."""
    for ours, theirs in zip(moments(released.eval(), given), moments(public.eval(), given), strict=True):
        error = ((ours - theirs).norm() / theirs.norm()).item()
        if not error < LARGEST_ERROR:
            raise ArithmeticError(f"the posterior of the public way is off by {error:g} of its size")


def settings(options: argparse.Namespace, like_for_like: bool) -> Iterator[Setting]:
    """Every combination asked for."""
    for b in options.batch:
        for precision in ("fp32", "bf16"):
            for captions in ("real", "full") if like_for_like else ("real",):
                for dropout in (True, False) if like_for_like else (False,):
                    yield Setting(b, precision, dropout, captions)


def against_public(
    name: str, public: PublicTextVE, encoder: TextVE, options: argparse.Namespace
) -> list[Row]:
    """The encoder and the public way, taking turns, in every setting."""
    rows = []
    config = encoder.config
    for setting in settings(options, like_for_like=name == RELEASED):
        given = features(setting, config.max_tokens, config.token_width)
        ways = {"ours": encoder.train(setting.dropout), "public": public.train(setting.dropout)}
        turns = in_turns({way: step(ways[way], given, setting) for way in ways}, options.repeats)
        ms, public_ms = median_ms(turns, "ours"), median_ms(turns, "public")
        rows.append(
            Row(
                name,
                **asdict(setting),
                ms=ms,
                public_ms=public_ms,
                ratio=median_ratio(turns, "public", "ours"),
            )
        )
        print(line(rows[-1]), flush=True)
    return rows


def text_encoders(options: argparse.Namespace) -> list[Row]:
    """`released` like for like, then the others. Each is built alone: two have their gradients at a time."""
    torch.manual_seed(0)
    released = TextVE(text_ve_preset(RELEASED))
    public = PublicTextVE(released)
    config = released.config
    check(
        released, public, features(Setting(2, "fp32", False, "real"), config.max_tokens, config.token_width)
    )
    rows = against_public(RELEASED, public, released, options)
    del released
    for name in OTHERS:
        gc.collect()
        rows += against_public(name, public, TextVE(text_ve_preset(name)), options)
    return rows


# -------------------------------------------------------------------------------------------------- the report

HEAD = f"{'encoder':20}{'b':>4} {'precision':10}{'dropout':9}{'captions':10}{'ms':>9}{'public ms':>11}{'ratio':>7}"


def line(row: Row) -> str:
    """One comparison, in columns."""
    return (
        f"{row.encoder:20}{row.b:4} {row.precision:10}{'yes' if row.dropout else 'no':9}{row.captions:10}"
        f"{row.ms:9.0f}{row.public_ms:11.0f}{row.ratio:7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="of every comparison")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32], help="batch sizes")
    parser.add_argument("--only", choices=["encoders", "language"], help="one half of the script")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    print(HEAD)
    rows = [] if options.only == "language" else text_encoders(options)
    print("\n" + RATE_HEAD)
    rates = [] if options.only == "encoders" else language_models(max(options.batch), options.repeats)
    print("\n".join(map(rate_line, rates)))
    tables = {"rows": rows, "language_models": rates}
    write_record(
        options.out, f"encoders.py --repeats {options.repeats}", {"repeats": options.repeats}, tables
    )


if __name__ == "__main__":
    main()
