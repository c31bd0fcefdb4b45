"""Remember captions' features: training on a fixed set then runs the language model once per caption."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.language import LanguageModel, TextFeatures


class CachedLanguageModel:
    """A frozen language model with a memory, keyed by the caption: float16 on the CPU, padding left out.

    Costs 2 * width bytes a token: 100,000 captions of 15 MiniLM tokens are 1.2 GB. `device` is where the
    features go.
    """

    def __init__(self, model: LanguageModel, device: torch.device | str = "cpu") -> None:
        if isinstance(model, nn.Module) and any(p.requires_grad for p in model.parameters()):
            name = type(model).__name__
            raise ValueError(f"{name} is being trained, so features change; call model.requires_grad_(False)")
        self.model, self.device = model, torch.device(device)
        self._memory: dict[str, Float[Tensor, "n d"]] = {}

    @property
    def width(self) -> int:
        return self.model.width

    @property
    def max_tokens(self) -> int:
        return self.model.max_tokens

    def __len__(self) -> int:
        return len(self._memory)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        return self.model.too_long(captions)

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        self.remember(captions)
        tokens = torch.zeros(len(captions), self.max_tokens, self.width)
        mask = torch.zeros(len(captions), self.max_tokens, dtype=torch.bool)
        for i, caption in enumerate(captions):
            known = self._memory[caption]
            tokens[i, : len(known)], mask[i, : len(known)] = known.float(), True
        return TextFeatures(tokens, mask).to(self.device)

    def remember(self, captions: Sequence[str], batch: int = 64) -> None:
        """Run the model on the captions it has not seen yet."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._memory]
        for start in range(0, len(new), batch):
            some = new[start : start + batch]
            features = self.model(some)
            for caption, tokens, mask in zip(some, features.tokens, features.mask, strict=True):
                self._memory[caption] = tokens[mask].detach().to("cpu", torch.float16)
