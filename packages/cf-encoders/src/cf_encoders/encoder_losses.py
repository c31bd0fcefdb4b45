"""Everything that trains a variational encoder besides the flow, in one call: L_Enc and L_KL (CrossFlow sec. 4.2).

Terms come without weights and each with its own name; the statistics beside them show a collapse long before the
pictures do, for a flow loss can look its best when the source is broken.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cf_encoders.contrastive import info_nce, retrieval_accuracy
from cf_encoders.gather import Group
from cf_encoders.gaussian import KL_FORMS, DiagonalGaussian, KLForm
from cf_encoders.reduction import Reduction


@dataclass(frozen=True)
class EncoderLosses:
    """terms: scalar losses with gradient, unweighted. statistics: detached scalars for the log."""

    terms: dict[str, Float[Tensor, ""]]
    statistics: dict[str, Float[Tensor, ""]]

    def total(self, weights: Mapping[str, float]) -> Float[Tensor, ""]:
        """sum of weight * term. Every term needs its weight, and every weight its term (ValueError)."""
        if set(weights) != set(self.terms):
            raise ValueError(
                f"the losses are {', '.join(sorted(self.terms))}, got weights for {', '.join(sorted(weights))}"
            )
        first, *rest = (weights[name] * term for name, term in self.terms.items())
        return sum(rest, start=first)


def encoder_losses(
    posterior: DiagonalGaussian,
    z_0: Float[Tensor, "b *d"],
    *,
    kl: KLForm = "paper",
    kl_reduction: Reduction = "sum",
    target: Float[Tensor, "b *d"] | None = None,
    log_scale: Float[Tensor, ""] | None = None,
    group: Group | None = None,
    sizes: Sequence[int] | None = None,
    reconstruction: Float[Tensor, "b"] | None = None,
) -> EncoderLosses:
    """Means over the batch of the encoder's losses, by name, with what tells a collapse.

    z_0: the sample of `posterior` that also enters the flow. group, sizes: the ranks among which the batch lies, and
    how many rows each holds where the caller knows it, as `info_nce` takes them.

    terms:
        kl              of the form named, over the latent as `kl_reduction` says   (`kl_weight` gives its weight)
        contrastive     info_nce(z_0, target, log_scale, group), where there is a target, such as an image tower's
        reconstruction  the mean of `reconstruction`, one number per sample (reconstruction.py), where given

    statistics: `DiagonalGaussian.statistics()`, and
        readable        share of z_0 whose nearest mean, of all ranks, by cosine, is their own: can the flow still
                        see which caption it started from? Needs no target, and no second draw
        retrieval       share of means whose nearest target, of all ranks, is their own; where there is a target
    """
    if (target is None) != (log_scale is None):
        missing = "log_scale" if log_scale is None else "target"
        raise ValueError(f"a contrastive loss needs target and log_scale; {missing} is None")
    if kl not in KL_FORMS:
        raise ValueError(f"unknown form {kl!r} of the KL; known: {', '.join(KL_FORMS)}")
    if z_0.shape != posterior.mean.shape:
        z, mean = tuple(z_0.shape), tuple(posterior.mean.shape)
        raise ValueError(f"z_0 is {z}, but the posterior {mean}; pass posterior.sample()")
    mean = posterior.mean.detach()
    terms = {"kl": KL_FORMS[kl](posterior, kl_reduction).mean()}
    readable = retrieval_accuracy(z_0.detach(), mean, group, sizes)
    statistics = posterior.statistics() | {"readable": readable}
    if target is not None and log_scale is not None:
        terms["contrastive"] = info_nce(z_0, target, log_scale, group, sizes)
        statistics["retrieval"] = retrieval_accuracy(mean, target.detach(), group, sizes)
    if reconstruction is not None:
        terms["reconstruction"] = reconstruction.mean()
    return EncoderLosses(terms, statistics)


LEAST_SIGMA = (
    0.02  # the source is a set of points; flows trained from such ones: benchmarks/results/kl_weight
)
LEAST_READABLE = 0.5  # of a batch of any size above two; far above chance, far below a source that works
MOST_MEAN = 3.0  # x_1 is of unit variance, and where the released form begins to pull means back


def collapse_warning(statistics: Mapping[str, Tensor | float]) -> str | None:
    """What is wrong with the source, and what helps, in one line; None while it is healthy.

    statistics: those of `encoder_losses`, of one batch or averaged. Reads them on the host, which waits for a GPU:
    call it where you log. The plain encoder of Table 3a, which has no sigma, is rightly told so.
    """
    needed = ("sigma", "mean_abs", "readable")
    if missing := [name for name in needed if name not in statistics]:
        raise ValueError(f"statistics lack {', '.join(missing)}; pass those that encoder_losses returns")
    sigma, mean_abs, readable = (float(statistics[name]) for name in needed)
    if not (math.isfinite(sigma) and math.isfinite(mean_abs)):
        return f"sigma is {sigma:.3g} and |mean| {mean_abs:.3g}: training diverged; lower the learning rate or clip"
    if sigma < LEAST_SIGMA:
        return (
            f"sigma is {sigma:.3g}: the source is hardly a distribution any more, its flow loss low but its samples "
            "brittle; raise the KL weight (see kl_weight)"
        )
    if readable < LEAST_READABLE:
        return (
            f"only {100 * readable:.0f} % of x_0 lie nearest their own mean: captions are forgotten in the noise; "
            "lower the KL weight (see kl_weight) or raise that of the contrastive loss"
        )
    if mean_abs > MOST_MEAN:
        return (
            f"|mean| is {mean_abs:.3g}, far from the data's unit variance: the means run away; raise the KL weight, "
            "or take the form 'released', whose sixth power pulls back steeply from 3"
        )
    return None
