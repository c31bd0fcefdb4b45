"""How much of a caption came back: tokens, whole captions, lengths."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from cf_encoders.tokenizer import PAD_ID


@dataclass(frozen=True)
class CaptionAccuracy:
    """Shares in [0, 1]."""

    token: float  # of the real tokens, <eos> included, padding not: the same token at the same position
    exact: float  # of the captions: every token right and none after <eos>
    length: float  # of the captions: as many tokens as there should be


def caption_accuracy(
    written: Int[Tensor, "b l"], ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]
) -> CaptionAccuracy:
    """Compare a decoder's `write` with the ids it should have written; `<bos>` is in neither.

    A word left out or put in moves all after it to wrong positions: this is a strict measure.
    """
    width = max(written.shape[1], ids.shape[1])
    written = F.pad(written, (0, width - written.shape[1]), value=PAD_ID)
    ids = F.pad(ids, (0, width - ids.shape[1]), value=PAD_ID)
    mask = F.pad(mask, (0, width - mask.shape[1]), value=False)
    right = written == ids
    same_length = (written != PAD_ID).sum(1) == mask.sum(1)
    return CaptionAccuracy(
        token=right[mask].float().mean().item(),
        exact=((right | ~mask).all(1) & same_length).float().mean().item(),
        length=same_length.float().mean().item(),
    )
