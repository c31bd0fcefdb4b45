"""L = L_FM + w L_Enc + lambda L_KL (+ mu L_mean): the training of CrossFlow section 4.2, appendix A, in its stages."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from cf_encoders import DiagonalGaussian, TextFeatures, encoder_losses
from cf_transformer import CrossAttentionDiMR
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.flow import flow_loss
from cf_apps.engine.ranks.draws import Draws, draws_of
from cf_apps.engine.task import Losses
from cf_apps.t2i.baseline import text_dropped_loss
from cf_apps.t2i.encoder_terms import Pair, Terms, encoder_terms
from cf_apps.t2i.model import T2IModel
from cf_apps.t2i.strategy import stage_shares


def t2i_losses(
    model: T2IModel,
    captions: list[str] | TextFeatures,
    x_1: Float[Tensor, "b c h w"],
    seen: Float[Tensor, "b k m n"],
    generator: torch.Generator,
    progress: float = 0.0,
) -> Losses:
    """All losses of one batch. captions: or what the language model makes of them, where that is known.

    seen: what the image tower looks at, x_1 or the image in [-1, 1].
    progress: the share of the run that is done, from 0 to 1; it decides the stage (strategy.py).

    In joint training, gradients of the flow loss reach the text encoder through x_t and through the target: the source
    is learned. What is frozen or not yet trained stays outside the graph: it gets no gradient, so no weight decay.
    """
    if isinstance(model.backbone, CrossAttentionDiMR):
        return _baseline_losses(model, model.backbone, captions, x_1, generator)
    config, stage = model.config, model.config.stage_at(progress)
    with _held_still(model) if stage == "flow" else nullcontext():
        text = model.read(captions)
        posterior = model.source(text)
        x_0 = draws_of(generator).sample(posterior)
    terms, stats = {}, stage_shares(config.strategy, stage)
    if stage != "encoder":
        flow = flow_loss(model.backbone, x_0, x_1, config.loss, generator)
        terms, stats = {"flow": (1.0, flow.loss)}, stats | flow.stats
    of_encoder, statistics = _encoder(model, text, posterior, x_0, x_1, seen, progress, draws_of(generator))
    return Losses(terms | of_encoder, statistics | stats)


def _encoder(
    model: T2IModel,
    text: TextFeatures,
    posterior: DiagonalGaussian,
    x_0: Float[Tensor, "b c h w"],
    x_1: Float[Tensor, "b c h w"],
    seen: Float[Tensor, "b k m n"],
    progress: float,
    draws: Draws,
) -> tuple[Terms, dict[str, Tensor]]:
    """The encoder's losses and what tells of its health; of a frozen one only the latter."""
    if model.config.stage_at(progress) == "flow":
        return {}, encoder_losses(posterior, x_0, group=draws.group, sizes=draws.sizes).statistics
    return encoder_terms(model.config, model.modules, Pair(text, x_1, seen), posterior, x_0, progress, draws)


def _baseline_losses(
    model: T2IModel,
    network: CrossAttentionDiMR,
    captions: list[str] | TextFeatures,
    x_1: Float[Tensor, "b c h w"],
    generator: torch.Generator,
) -> Losses:
    """L_FM from noise, and nothing else."""
    text = model.read(captions)
    x_0 = draws_of(generator).sample(model.source(text))
    flow = text_dropped_loss(network, text, x_0, x_1, model.config.loss, generator)
    return Losses({"flow": (1.0, flow.loss)}, flow.stats)


@contextmanager
def _held_still(model: T2IModel) -> Iterator[None]:
    """The text's side of the model without gradient and without dropout: frozen."""
    parts = [model.modules[name] for name in ("language", "text_ve") if name in model.modules]
    were_training = [part.training for part in parts]
    for part in parts:
        part.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in zip(parts, were_training, strict=True):
            part.train(training)
