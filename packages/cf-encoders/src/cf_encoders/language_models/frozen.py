"""What all frozen language models share: batches, ids to the device, no gradient, a fingerprint."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_encoders.language import TextFeatures
from cf_encoders.language_models.fast_tokenizer import PADDING, CaptionTokenizer
from cf_encoders.language_models.fingerprint import fingerprint
from cf_encoders.numerics import widen


class FrozenEncoder(nn.Module, ABC):
    """Captions -> token features (b, max_tokens, width), padding last; float32, float64 if the network is.

    A model here says how its network is loaded and which of its states are the features. Parameters have no gradient,
    and `train()` leaves dropout off. `to(device)` moves it, and its features are made where it is.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: CaptionTokenizer,
        width: int,
        *,
        about: str,
        device: torch.device | str,
        batch_size: int,
    ) -> None:
        """`about`: what the network computes beyond its weights, for the fingerprint."""
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.network, self.tokenizer = network, tokenizer
        self.width, self.max_tokens, self.batch_size = width, tokenizer.max_tokens, batch_size
        self._about = about
        self.eval().requires_grad_(False).to(device)

    @abstractmethod
    def hidden_states(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """The network's features of these ids; the mask is False on padding."""

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """`batch_size` captions at a time; the features of a caption do not depend on how many come with it."""
        require_list(captions)
        parts = [self._encode(some) for some in batches(captions, self.batch_size)]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return TextFeatures(
                torch.zeros(0, self.max_tokens, self.width, device=self.device),
                torch.zeros(0, self.max_tokens, dtype=torch.bool, device=self.device),
            )
        return TextFeatures(torch.cat([p.tokens for p in parts]), torch.cat([p.mask for p in parts]))

    def too_long(self, captions: Sequence[str]) -> list[int]:
        """Indices of the captions with more than `max_tokens` tokens, the framing ones included."""
        require_list(captions)
        return self.tokenizer.too_long(captions)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that tell this model from others: see `fingerprint.py`. May take a second."""
        settings = f"{type(self).__name__}, {self.max_tokens} tokens"
        return fingerprint(self.network, settings, self._about, self.tokenizer.description)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in eval mode: a frozen model inside one that trains must not start to drop activations."""
        return super().train(False)

    def _encode(self, captions: Sequence[str]) -> TextFeatures:
        ids = self.tokenizer(captions).to(self.device, non_blocking=True)
        mask = ids != PADDING
        hidden = self.hidden_states(ids.masked_fill(~mask, self.tokenizer.pad_id), mask)
        return TextFeatures(widen(hidden), mask)


def batches(captions: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The captions in order, `size` at a time."""
    for start in range(0, len(captions), size):
        yield captions[start : start + size]


def require_list(captions: Sequence[str]) -> None:
    """Raise TypeError for one bare string, whose letters would else be taken for captions."""
    if isinstance(captions, str):
        raise TypeError(f"expected a list of captions, got the string {captions[:40]!r}; wrap it in a list")
