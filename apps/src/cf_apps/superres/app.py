"""Super-resolution, as the commands of every task see it."""

from cf_apps.data.picture_sets import PICTURES
from cf_apps.engine.commands.app import App, Pictures, Scoring
from cf_apps.superres.config import SuperResConfig
from cf_apps.superres.evaluate import held_out, score
from cf_apps.superres.model import NAME
from cf_apps.superres.presets import PRESETS
from cf_apps.superres.sample import Sampler
from cf_apps.superres.sheets import held_out_sheet
from cf_apps.superres.task import prepare


def show(sampler: Sampler, scoring: Scoring) -> Pictures:
    """Held-out pictures: small, bicubic, ours, true."""
    data = held_out(scoring, sampler.model.config.image_size)
    return {"samples": held_out_sheet(sampler, data, scoring.how, scoring.seed)}


APP: App[SuperResConfig, Sampler] = App(
    name=NAME,
    data=PICTURES,
    presets=PRESETS,
    prepare=prepare,
    parts=("backbone",),
    open=Sampler.from_run,
    score=score,
    show=show,
)
