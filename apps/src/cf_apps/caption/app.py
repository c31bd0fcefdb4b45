"""Captioning, as the commands of every task see it: two trainings, of which the second is the task itself."""

from cf_apps.caption.config import CaptionConfig, TextConfig
from cf_apps.caption.evaluate import score, show
from cf_apps.caption.model import NAME, SAMPLING_PARTS
from cf_apps.caption.prepare import prepare
from cf_apps.caption.prepare_text import prepare_text
from cf_apps.caption.presets import PRESETS, TEXT_PRESETS
from cf_apps.caption.sample import Captioner
from cf_apps.caption.text import NAME as TEXT_NAME
from cf_apps.caption.text import PARTS, TextModel
from cf_apps.caption.text_score import score_text
from cf_apps.data.sources import EMOJI, SHAPES
from cf_apps.engine.commands.app import App

DATA = (
    f"{SHAPES}, {EMOJI}, a folder of images with metadata.jsonl, .csv, same-name .txt or parquet, or Karpathy's "
    "dataset_coco.json beside train2014 and val2014"
)

TEXT_APP: App[TextConfig, TextModel] = App(
    name=TEXT_NAME,
    data=DATA,
    presets=TEXT_PRESETS,
    prepare=prepare_text,
    parts=PARTS,
    open=TextModel.from_run,
    score=score_text,
    show=lambda model, scoring: {},
)

APP: App[CaptionConfig, Captioner] = App(
    name=NAME,
    data=DATA,
    presets=PRESETS,
    prepare=prepare,
    parts=SAMPLING_PARTS,
    open=Captioner.from_run,
    score=score,
    show=show,
)
