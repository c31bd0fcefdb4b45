"""Remember captions' features: training on a fixed set then runs the language model once per caption."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from cf_encoders.language import LanguageModel, TextFeatures
from cf_encoders.language_models.disk_store import DTYPES, DiskStore, Manifest
from cf_encoders.language_models.feature_store import FeatureStore, MemoryStore, StoredFeatures
from cf_encoders.language_models.frozen import batches, require_list
from cf_encoders.numerics import widen

Progress = Callable[[int, int], None]  # (captions done, captions to do)


class CachedLanguageModel:
    """A frozen language model with a memory, keyed by the caption; its features come as float32.

    device    where the features go
    folder    kept there instead of in this process, for other runs and processes too; read from it when asked for,
              so that a million captions do not fill the memory. The model needs a `fingerprint`.
    dtype     float16, bfloat16 or float32, in memory and on disk; a feature beyond its range is a ValueError
    padding   "left out": costs 2 * width bytes a token in float16, and the features of padding come as zeros.
              "kept": they come as the model gave them, which the public CrossFlow weights look at, and every caption
              costs as much as the longest.

    `hits` and `misses` count the captions that were asked for, a caption twice in one call once: those that were
    there, and those the model was run for.
    """

    def __init__(
        self,
        model: LanguageModel,
        device: torch.device | str = "cpu",
        *,
        folder: Path | str | None = None,
        dtype: torch.dtype = torch.float16,
        padding: str = "left out",
    ) -> None:
        if isinstance(model, nn.Module) and any(p.requires_grad for p in model.parameters()):
            name = type(model).__name__
            raise ValueError(f"{name} is being trained, so features change; call model.requires_grad_(False)")
        self.model, self.device = model, torch.device(device)
        self._manifest = manifest_of(model, dtype, padding, on_disk=folder is not None)
        self._store: FeatureStore = MemoryStore() if folder is None else DiskStore(folder, self._manifest)
        self.hits, self.misses = 0, 0

    @classmethod
    def from_folder(cls, folder: Path | str, device: torch.device | str = "cpu") -> "CachedLanguageModel":
        """What an earlier run kept in `folder`, without loading the model: its other captions are KeyErrors.

        FileNotFoundError or ValueError unless the folder holds one model's features (or is one's subfolder).
        """
        store = DiskStore.open(folder)
        manifest = store.manifest
        return cls(
            AbsentModel(manifest, store.folder),
            device,
            folder=store.folder.parent,
            dtype=DTYPES[manifest.dtype],
            padding=manifest.padding,
        )

    @property
    def width(self) -> int:
        return self.model.width

    @property
    def max_tokens(self) -> int:
        return self.model.max_tokens

    def __len__(self) -> int:
        return len(self._store)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        return self.model.too_long(captions)

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        require_list(captions)
        asked = list(dict.fromkeys(captions))
        found = dict(zip(asked, self._store.read(asked), strict=True))
        new = [caption for caption, features in found.items() if features is None]
        self.hits += len(asked) - len(new)
        found.update(self._run(new))
        return self._unpack([features for caption in captions if (features := found[caption]) is not None])

    def remember(self, captions: Sequence[str], batch: int = 64, progress: Progress | None = None) -> None:
        """Run the model on the captions it has not seen yet, `batch` at a time, each kept before the next is run.

        `progress(done, to_do)` is called after every batch. Several processes may share the work and a folder: give
        each its share of the captions.
        """
        require_list(captions)
        asked = list(dict.fromkeys(captions))
        new = [caption for caption, has in zip(asked, self._store.has(asked), strict=True) if not has]
        self.hits += len(asked) - len(new)
        done = 0
        for some in batches(new, batch):
            done += len(self._run(some))
            if progress is not None:
                progress(done, len(new))

    def _run(self, captions: Sequence[str]) -> dict[str, StoredFeatures]:
        """The model's features of captions that are not in the store, now also there."""
        if not captions:
            return {}
        features = self._pack(self.model(captions))
        self._store.write(captions, features)
        self.misses += len(captions)
        return dict(zip(captions, features, strict=True))

    def _pack(self, features: TextFeatures) -> list[StoredFeatures]:
        """One transfer for all captions, in the dtype of the store."""
        kept = torch.ones_like(features.mask) if self._manifest.padding == "kept" else features.mask
        rows = features.tokens.detach()[kept].to(self._dtype).cpu()
        if not rows.isfinite().all():
            raise ValueError(f"features do not fit {self._dtype}; use dtype=torch.bfloat16 or torch.float32")
        sizes, lengths = kept.sum(dim=1).tolist(), features.mask.sum(dim=1).tolist()
        return [StoredFeatures(*one) for one in zip(rows.split(sizes), lengths, strict=True)]

    def _unpack(self, features: Sequence[StoredFeatures]) -> TextFeatures:
        tokens = torch.zeros(len(features), self.max_tokens, self.width, dtype=self._dtype)
        for row, one in zip(tokens, features, strict=True):
            row[: len(one.rows)] = one.rows
        lengths = torch.tensor([one.length for one in features], dtype=torch.long)
        mask = torch.arange(self.max_tokens) < lengths[:, None]
        there = TextFeatures(tokens, mask).to(self.device)
        return TextFeatures(widen(there.tokens), there.mask)

    @property
    def _dtype(self) -> torch.dtype:
        return DTYPES[self._manifest.dtype]


class AbsentModel:
    """In place of a model that was not loaded: it has the sizes, and an error for every new caption."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.fingerprint, self.name = manifest.fingerprint, manifest.model
        self.width, self.max_tokens, self.folder = manifest.width, manifest.max_tokens, folder

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        raise KeyError(
            f"{len(captions)} captions are not in {self.folder}, the first {captions[0]!r}, and {self.name} is not "
            "loaded; use CachedLanguageModel(model, folder=...) to add them"
        )

    def too_long(self, captions: Sequence[str]) -> list[int]:
        raise TypeError(
            f"whether captions are too long is known to the tokenizer of {self.name}, not loaded here"
        )


def manifest_of(model: LanguageModel, dtype: torch.dtype, padding: str, on_disk: bool) -> Manifest:
    """What is stored, of whose features. ValueError for features on disk of a model without a fingerprint."""
    if isinstance(model, AbsentModel):
        name, fingerprint = model.name, model.fingerprint
    else:
        # not isinstance(model, FrozenLanguageModel), which computes the fingerprint to see whether there is one
        name, fingerprint = type(model).__name__, getattr(model, "fingerprint", "") if on_disk else ""
        if on_disk and not fingerprint:
            raise ValueError(f"{name} has no fingerprint, so its features cannot be told apart on disk")
    return Manifest(
        name, fingerprint, model.width, model.max_tokens, str(dtype).removeprefix("torch."), padding
    )
