"""Where each of a million captions' features lie, in 36 bytes a caption instead of a dict's 300."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Shaped

Keys = Shaped[np.ndarray, "n"]
Places = Shaped[np.ndarray, "n"]

KEY = np.dtype("S16")
PLACE = np.dtype([("file", "<u4"), ("offset", "<u8"), ("rows", "<u2"), ("tokens", "<u2"), ("crc", "<u4")])


def caption_keys(captions: Sequence[str]) -> Keys:
    """128 bits of BLAKE2b for each caption: no two captions of any data set will share them."""
    digests = (
        hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for caption in captions
    )
    return np.frombuffer(b"".join(digests), dtype=KEY)


class CaptionIndex:
    """Keys -> places, as a few sorted blocks, each more than twice as long as the next.

    Adding merges blocks of similar length, so that n keys added a few at a time cost n log n altogether and a search
    is a bisection in about log n blocks. A key added again moves to its new place.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[Keys, Places]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._blocks)

    def find(self, keys: Keys) -> tuple[Bool[np.ndarray, "n"], Places]:
        """Which keys are known, and the places of those that are (of the others nothing meaningful)."""
        known, places = np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=PLACE)
        for block_keys, block_places in self._blocks:
            found, where = _search(block_keys, keys)
            known |= found
            places[found] = block_places[where[found]]
        return known, places

    def add(self, keys: Keys, places: Places) -> None:
        # of a key given twice the last place counts: the first one from behind
        keys, last = np.unique(keys[::-1], return_index=True)
        places = places[::-1][last]
        for block_keys, block_places in self._blocks:
            found, where = _search(block_keys, keys)
            block_places[where[found]] = places[found]
            keys, places = keys[~found], places[~found]
        while self._blocks and len(self._blocks[-1][0]) <= 2 * len(keys):
            block_keys, block_places = self._blocks.pop()
            keys, places = np.concatenate([block_keys, keys]), np.concatenate([block_places, places])
            order = np.argsort(keys, kind="stable")
            keys, places = keys[order], places[order]
        if len(keys):
            self._blocks.append((keys, places))


def _search(
    sorted_keys: Keys, keys: Shaped[np.ndarray, "m"]
) -> tuple[Bool[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    where = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[where] == keys, where
