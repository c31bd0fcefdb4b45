"""Tables of addresses on the device, with which one launch reads many separate tensors."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

KEPT = 256  # tables: far more than a model has, few enough to forget those of tensors that are gone
ALIGNMENT = 16  # bytes: the widest load of one thread


class PointerTables:
    """int64 tables on the device, `build(*facts)` for each new tuple of facts, such as addresses.

    A table depends on its facts alone, so one that comes again is right whatever its addresses hold by now; in steady
    state nothing is built or copied. While a CUDA graph is captured, tables in use are kept for ever, since the graph
    reads them at every replay; a new one is then copied by the graph itself, from pinned memory.
    """

    def __init__(self, build: Callable[..., list[list[int]]]) -> None:
        self._build = build
        self._kept: OrderedDict[Any, tuple[Tensor, Tensor]] = OrderedDict()
        self._captured: list[tuple[Tensor, Tensor]] = []

    def on(self, device: torch.device, *facts: Hashable) -> Int[Tensor, "rows columns"]:
        """The table of these facts."""
        key = (device, *facts)
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        tables = self._kept.get(key)
        if tables is None:
            host = torch.tensor(self._build(*facts), dtype=torch.int64, pin_memory=device.type == "cuda")
            tables = host, host.to(device, non_blocking=True)
            if not capturing:  # a captured copy has not happened yet
                self._kept[key] = tables
        else:
            self._kept.move_to_end(key)
        if capturing:
            self._captured.append(tables)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return tables[1]


def common_alignment(numbers: Iterable[int]) -> int:
    """The largest power of two, up to 16, that divides every number."""
    alignment = ALIGNMENT
    for number in numbers:
        while number % alignment:
            alignment //= 2
    return alignment
