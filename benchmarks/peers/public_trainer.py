# pyright: reportPrivateImportUsage=false
# torch offers its operations on lists of tensors (torch._foreach_*) under such names only
"""The public code's training step of text-to-image CrossFlow, written anew from its description: the thing to be
compared with.

Text encoder (`public_text_ve.py`), backbone (`public_dimr.py`) and image tower train together:
L = L_FM + InfoNCE + 1e-2 KL', the KL in its sixth-power form, t logit-normal.

    training    every block of the backbone is computed twice
    optimizer   AdamW over all parameters, not fused: on a CPU one parameter after the other
    EMA         of everything, the image tower too; two dicts of all parameters are made and looped over in each step
    clipping    none

Two mistakes of the public code are left out, so that its losses can be held against ours: logits are multiplied by the
exponential of the learned scale, and null targets are those of `cf_flowcore`. No figure of it is a figure of the
public code itself.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from cf_apps.engine.config import FitConfig
from cf_apps.t2i.model import T2IModel
from cf_apps.t2i.task import T2IBatch
from cf_encoders import TextVE
from cf_flowcore import LogitNormal, draw_null, null_targets
from public_dimr import PublicDiMR, TimeVector
from public_text_ve import PublicTextVE
from torch import Tensor, nn

SCALE_WEIGHTS = (1 / 4, 1.0)
KL_WEIGHT = 1e-2


@dataclass(frozen=True)
class Means:
    """How the public trainer goes about it; what is False is done as well as torch can."""

    blocks_twice: bool = True
    ema_in_a_loop: bool = True
    adamw_in_a_loop: bool = True


AS_PUBLIC = Means()


class PublicTrainer:
    """The public way through the weights of `model`, which are copied."""

    def __init__(self, model: T2IModel, fit: FitConfig) -> None:
        text_ve, self.config, self.decay = model.modules["text_ve"], model.config.loss, fit.ema_decay
        assert isinstance(text_ve, TextVE)
        backbone = PublicDiMR(model.backbone)  # pyright: ignore[reportArgumentType] - the ways are of a DiMR
        self.modules = nn.ModuleDict({"text_ve": PublicTextVE(text_ve), "backbone": backbone})
        for name in ("image_tower", "log_scale"):
            self.modules[name] = copy.deepcopy(model.modules[name])
        self.average = copy.deepcopy(self.modules).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(fit.weight_decay), lr=fit.lr, betas=fit.betas)
        self.means = AS_PUBLIC

    def step(self, batch: T2IBatch, generator: torch.Generator) -> None:
        """Losses, backward, AdamW, EMA."""
        self.modules.train()
        self.backbone.recompute = self.means.blocks_twice
        self.loss(batch, generator).backward()
        for group in self.optimizer.param_groups:
            group["fused"] = not self.means.adamw_in_a_loop
        self.optimizer.step()
        self._average_weights()
        self.optimizer.zero_grad()

    def loss(self, batch: T2IBatch, generator: torch.Generator) -> Tensor:
        """The sum of all, with its weights."""
        assert batch.text is not None
        mean, logvar = self.modules["text_ve"](batch.text.tokens, batch.text.mask)
        x_0 = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator)
        is_null = draw_null(len(x_0), self.config.null_rate, generator=generator)
        x_1 = null_targets(batch.x_1, is_null, generator=generator, across_ranks=False)
        t = LogitNormal()(len(x_0), generator=generator)
        kl = -0.5 * (1 + logvar - (0.3 * mean) ** 6 - logvar.exp()).flatten(1).sum(1).mean()
        return self._flow(x_0, x_1, t, is_null) + self._contrast(x_0, batch.seen) + KL_WEIGHT * kl

    @property
    def backbone(self) -> PublicDiMR:
        backbone = self.modules["backbone"]
        assert isinstance(backbone, PublicDiMR)
        return backbone

    def _flow(self, x_0: Tensor, x_1: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        kept, time = 1 - self.config.sigma_min, t[:, None, None, None]
        x_t, v_t = (1 - kept * time) * x_0 + time * x_1, x_1 - kept * x_0
        predictions = self.backbone.scales(x_t, t, is_null)
        losses = []
        for weight, v in zip(SCALE_WEIGHTS, predictions, strict=True):
            k = v_t.shape[-1] // v.shape[-1]
            losses.append(weight * (v - k * F.avg_pool2d(v_t, k)).square().mean())
        return torch.stack(losses).sum()

    def _contrast(self, x_0: Tensor, images: Tensor) -> Tensor:
        text = F.normalize(x_0.flatten(1), dim=-1)
        image = F.normalize(self.modules["image_tower"](images).flatten(1), dim=-1)
        scale, truth = self.modules["log_scale"]().exp(), torch.arange(len(text))
        logits = scale * text @ image.T
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2

    @torch.no_grad()
    def _average_weights(self) -> None:
        averages, weights = dict(self.average.named_parameters()), dict(self.modules.named_parameters())
        if not self.means.ema_in_a_loop:
            torch._foreach_lerp_(list(averages.values()), list(weights.values()), 1 - self.decay)
            return
        for name, weight in weights.items():
            averages[name].mul_(self.decay).add_(weight.data, alpha=1 - self.decay)

    def _groups(self, weight_decay: float) -> list[dict[str, object]]:
        times = [module for module in self.modules.modules() if isinstance(module, TimeVector)]
        spared = {id(p) for vector in times for p in (vector.w, vector.b)}  # nothing else is
        trained = [p for p in self.modules.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if id(p) not in spared], "weight_decay": weight_decay},
            {"params": [p for p in trained if id(p) in spared], "weight_decay": 0.0},
        ]
