"""How much of held-out captions comes back through the latent."""

import torch

from cf_apps.caption.prepare_text import IMAGE_SIZE
from cf_apps.caption.sources import Held, open_captions, references
from cf_apps.caption.text import TextModel
from cf_apps.data.captioned_shapes import held_out_captions
from cf_apps.data.shapes_captions import OPEN
from cf_apps.data.sources import SHAPES
from cf_apps.engine.commands.app import Columns, Scoring

PER_TASK, PER_TASK_OPEN = (
    140,
    28,
)  # held-out captions of captioned_shapes: 840 that place everything, 168 that do not
TEMPERATURES = (0.0, 1.0, 1.5)


def score_text(model: TextModel, scoring: Scoring) -> Columns:
    """Exact captions from z at the mean, sampled, and with half as much noise again; KL and sigma of the posterior."""
    captions = held_out_texts(scoring.data, scoring.split)
    column = {}
    for place, temperature in enumerate(TEMPERATURES):
        generator = torch.Generator().manual_seed(scoring.seed)
        column[f"exact_at_temperature_{temperature:g}"] = model.exact(captions, generator, temperature)
        scoring.line.show((place + 1) / len(TEMPERATURES), f"temperature {temperature:g}")
    with torch.no_grad():
        posterior = model.posterior(captions[:512])
    column |= {"kl": posterior.kl().mean().item(), "sigma": posterior.std.mean().item()}
    return {"captions": column | {"captions": len(captions), "cut": len(model.too_long(captions))}}


def held_out_texts(name: str, split: Held) -> list[str]:
    """Captions that training cannot have seen: of held-out pictures, for captioned_shapes held-out words."""
    if name == SHAPES:
        said = held_out_captions(PER_TASK, split=split, reading_order=True)
        unsaid = held_out_captions(PER_TASK_OPEN, split=split, rates=OPEN, reading_order=True)
        return [caption.text for caption in (*said, *unsaid)]
    data = open_captions(name, IMAGE_SIZE).held_out(split)
    return [text for texts in references(data, torch.arange(len(data))) for text in texts]
