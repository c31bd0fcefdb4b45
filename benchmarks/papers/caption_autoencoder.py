"""Real captions through the latent of an image and back: token accuracy on captions of held-out images.

    uv run python benchmarks/papers/caption_autoencoder.py --captions annotations/captions_val2017.json
    uv run python benchmarks/papers/caption_autoencoder.py --captions ... --decoder autoregressive
    uv run python benchmarks/papers/caption_autoencoder.py --captions ... --tokenizer wordpiece

CrossFlow sec. 5.2 and app. B.4: captioning needs a text encoder whose latents a decoder can read. Each call trains one
row (tokens -> TextVE -> sampled z of (4, 32, 32) -> decoder -> tokens) and writes the table of all rows so far.
COCO's captions are not part of this repository: `--captions` is its annotation file, gzipped or not.

Measured on all captions of 5 % of the images, which training never sees, with z sampled from q(z | caption):
  token   share of tokens that come back at their position; <eos> counts, <bos> and padding do not
  exact   share of captions that come back whole
  length  share of captions with as many tokens as they had
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from caption_training import Plan, Split, circumstances, coco_split, curves, table, train
from cf_encoders import TextVEConfig
from cf_encoders.captions.accuracy import CaptionAccuracy, caption_accuracy
from cf_encoders.captions.autoencoder import CaptionAutoencoder
from cf_encoders.captions.autoencoder_config import CaptionAutoencoderConfig
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.captions.subwords import Subwords
from cf_encoders.pretrained import save_pretrained
from cf_encoders.tokenizer import SPECIALS
from torch import Tensor

LATENT = (4, 32, 32)
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "parallel": {"one pass": {}, "and the least sure 30 % again": {"redo": 0.3}},
    "autoregressive": {"greedy": {}, "4 beams": {"beams": 4}},
}
TEMPERATURES = (0.0, 1.0, 1.5)
EXAMPLES = 12


@dataclass(frozen=True)
class Options:
    """One row of the table."""

    captions: Path
    """COCO's captions JSON, or its .gz."""
    out: Path = Path("benchmarks/results/caption_autoencoder")
    save: Path | None = None
    """A folder for the trained model and its tokenizer."""
    decoder: str = "parallel"
    """parallel or autoregressive."""
    tokenizer: str = "bpe"
    """bpe or wordpiece."""
    vocabulary: int = 2048
    max_tokens: int = 32
    """<bos> and <eos> included."""
    width: int = 192
    steps: int = 600
    batch: int = 128
    replaced: float = 0.2
    """Mean share of training tokens replaced by random ones: a rare word is then copied as often as a frequent one."""
    kl_weight: float = 3e-5
    seed: int = 0


def config(options: Options, vocabulary: int) -> CaptionAutoencoderConfig:
    """16 queries write 4 x 8 x 8 numbers each; 31 positions read them."""
    size: dict[str, Any] = {
        "latent": LATENT,
        "patch": 8,
        "width": options.width,
        "heads": options.width // 48,
        "mlp_hidden": 2 * options.width,
    }
    encoder = TextVEConfig(
        token_width=options.width, max_tokens=options.max_tokens, depth=1, mean_std=1.0, **size
    )
    decoder = CaptionDecoderConfig(vocabulary=vocabulary, max_tokens=options.max_tokens - 1, **size)
    return CaptionAutoencoderConfig(encoder, decoder, options.decoder, kl_weight=options.kl_weight)


def batches(ids: Tensor, mask: Tensor, options: Options, vocabulary: int, generator: torch.Generator):  # noqa: ANN201
    """A function of nothing that draws a batch, cut to its longest caption, with tokens replaced at random."""

    def draw() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(ids), (options.batch,), generator=generator)
        some, real = ids[rows], mask[rows]
        longest = int(real.sum(1).max())
        some, real = some[:, :longest], real[:, :longest]
        share = 2 * options.replaced * torch.rand(len(some), 1, generator=generator)
        replace = (torch.rand(some.shape, generator=generator) < share) & (some >= len(SPECIALS))
        other = torch.randint(len(SPECIALS), vocabulary, some.shape, generator=generator)
        return torch.where(replace, other, some), real

    return draw


@torch.no_grad()
def score(
    model: CaptionAutoencoder, ids: Tensor, mask: Tensor, temperature: float, decoding: dict[str, Any]
) -> CaptionAccuracy:
    """Accuracy of the captions written from sampled latents, 256 at a time."""
    generator = torch.Generator().manual_seed(1)
    written = [
        model.decoder.write(model.encode(i, m).sample(generator, temperature), **decoding)
        for i, m in zip(ids.split(256), mask.split(256), strict=True)
    ]
    return caption_accuracy(torch.cat(written), *model.targets(ids, mask))


@torch.no_grad()
def posterior(model: CaptionAutoencoder, ids: Tensor, mask: Tensor) -> dict[str, float]:
    """Statistics of q(z | caption) over the first 1024 captions, and its KL in nats per caption."""
    q = model.encode(ids[:1024], mask[:1024])
    return {name: value.item() for name, value in q.statistics().items()} | {"kl": q.kl().mean().item()}


def run(options: Options, split: Split) -> dict[str, Any]:
    """Train one row and score it."""
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    tokenizer = Subwords.build(split.train, options.vocabulary, options.tokenizer)
    ids, mask = tokenizer.encode(split.train, options.max_tokens)
    held_ids, held_mask = tokenizer.encode(split.held_out, options.max_tokens)
    model = CaptionAutoencoder(config(options, len(tokenizer)))
    draw = batches(ids, mask, options, len(tokenizer), generator)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        some, real = draw()
        losses = model.losses(some, real, generator)
        if step % 50:
            return losses.total, {}
        shown = {"cross_entropy": losses.cross_entropy.item(), "kl": losses.kl.item()}
        statistics = losses.posterior.statistics()
        shown |= {name: statistics[name].item() for name in ("sigma", "snr")}
        model.eval()
        shown["token"] = score(model, held_ids[:128], held_mask[:128], 1.0, {}).token
        model.train()
        return losses.total, shown

    begin = time.monotonic()
    log = train(model, loss, Plan(options.steps, options.batch), f"{options.decoder} {options.tokenizer}")
    seconds = time.monotonic() - begin
    if options.save is not None:
        save_pretrained(model, options.save)
        tokenizer.save(options.save / "tokenizer.json")
    scores = {
        way: {str(t): asdict(score(model, held_ids, held_mask, t, decoding)) for t in TEMPERATURES}
        for way, decoding in WAYS[options.decoder].items()
    }
    some = torch.Generator().manual_seed(2)
    back = model.reconstruct(split.held_out, tokenizer, some)
    pairs = [(tokenizer.normal_form(a), b) for a, b in zip(split.held_out, back, strict=True)]
    return {
        "options": {k: v for k, v in asdict(options).items() if k not in ("captions", "out", "save")},
        **circumstances(),
        "train_seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "captions": {"train": len(split.train), "held_out": len(split.held_out)},
        "held_out_tokens": int(model.targets(held_ids, held_mask)[1].sum()),
        "held_out_cut_to_max_tokens": sum(tokenizer.length(c) > options.max_tokens for c in split.held_out),
        "held_out_unknown_tokens": int((held_ids == 1).sum()),
        "latent": LATENT,
        "scores_by_temperature": scores,
        "posterior": posterior(model, held_ids, held_mask),
        "same_text": sum(a == b for a, b in pairs) / len(pairs),
        "examples": pairs[:EXAMPLES],
        "failures": [pair for pair in pairs if pair[0] != pair[1]][:EXAMPLES],
        "log": log,
    }


def report(rows: dict[str, dict[str, Any]]) -> str:
    """The Markdown of all rows found."""
    first = next(iter(rows.values()))
    cells, stats = [], []
    for row in rows.values():
        o = row["options"]
        for way, by_t in row["scores_by_temperature"].items():
            one = by_t["1.0"]
            cells.append(
                [o["tokenizer"], o["decoder"], way]
                + [f"{100 * one[name]:.2f}" for name in ("token", "exact", "length")]
                + [f"{100 * by_t[t]['token']:.2f}" for t in ("0.0", "1.5")]
            )
        p = row["posterior"]
        numbers = [f"{p[name]:.3f}" for name in ("sigma", "mean_abs", "mean_std")] + [
            f"{p['snr']:.2f}",
            f"{p['kl']:.0f}",
        ]
        stats.append([o["tokenizer"], o["decoder"], *numbers, f"{row['train_seconds']:.0f} s", row["commit"]])
    names = (
        "tokenizer",
        "decoder",
        "decoding",
        "token %",
        "exact %",
        "length %",
        "token % of mean",
        "of 1.5 sigma",
    )
    heads = (
        "tokenizer",
        "decoder",
        "sigma",
        "mean \\|mu\\|",
        "std of mu",
        "SNR",
        "KL (nats)",
        "training",
        "commit",
    )
    parts = [
        "# Captions -> latent -> captions",
        f"COCO val2017: {first['captions']['train']:,} captions train, all {first['captions']['held_out']:,} captions "
        f"of 5 % of the images are held out ({first['held_out_tokens']:,} bpe tokens with <eos>, padding and <bos> "
        f"not counted). Latent {tuple(first['latent'])}, sampled; `token % of mean` is without the noise, `of 1.5 "
        "sigma` with half as much again. "
        f"{first['device']}, torch {first['torch']}, seed {first['options']['seed']}. Captions are cut to "
        f"{first['options']['max_tokens']} tokens ({first['held_out_cut_to_max_tokens']} of the held-out ones are "
        "longer). Each row is one call of `benchmarks/papers/caption_autoencoder.py --captions FILE` with "
        "`--tokenizer` and `--decoder` as named.",
        table(names, cells),
        "q(z | caption) on held-out captions (the prior has sigma 1; SNR is the batch variance of mu / sigma^2):",
        table(heads, stats),
        "The second pass neither helps nor harms here: a latent made by the encoder tells every token by itself, so "
        "the decoder learns little from the others. It is for latents that leave a choice, as those of a flow may; "
        "`test_caption_decoder.py` has the case of two words that must agree.",
        "![curves](curves.png)",
    ]
    for row in rows.values():
        o = row["options"]
        parts += [
            f"## {o['tokenizer']}, {o['decoder']}",
            f"{100 * row['same_text']:.1f} % of the held-out captions come back as the same text, in one pass from one "
            "sample. The first of them:",
            table(("caption", "came back"), [[a, "the same" if a == b else b] for a, b in row["examples"]]),
            "The first that did not:",
            table(("caption", "came back"), row["failures"]),
        ]
    return "\n\n".join(parts) + "\n"


def main(options: Options) -> None:
    if options.decoder not in WAYS:
        sys.exit(f"unknown decoder {options.decoder!r}; known: {', '.join(WAYS)}")
    row = run(options, coco_split(options.captions))
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.tokenizer}-{options.decoder}.json"
    file.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n")
    rows = {found.stem: json.loads(found.read_text()) for found in sorted(options.out.glob("*-*.json"))}
    (options.out / "report.md").write_text(report(rows))
    logs = {name: row["log"] for name, row in rows.items()}
    curves(
        logs,
        {"cross_entropy": "nats per token", "token": "held-out token accuracy"},
        options.out / "curves.png",
    )
    print(report(rows))


if __name__ == "__main__":
    main(tyro.cli(Options))
