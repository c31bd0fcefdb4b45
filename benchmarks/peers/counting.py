"""What a solve asks for: calls of the field, operations, reads from the device."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from cf_flowcore import Velocity
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "equal", "nonzero")


class Counted:
    """A field that keeps the number of rows of each call, and counts those outside [0, 1]."""

    def __init__(self, v: Velocity) -> None:
        self.v = v
        self.rows: list[int] = []
        self.outside = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.rows.append(len(x))
        self.outside += bool(((t < 0) | (t > 1)).any())
        return self.v(x, t)


class CountOps(TorchDispatchMode):
    """Counts dispatched operations and the reads from the device among them."""

    def __init__(self) -> None:
        super().__init__()
        self.ops, self.reads = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.ops += 1
        self.reads += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> "CountOps":
        def tolist(x: Tensor, whole: Callable[[Tensor], Any] = Tensor.tolist) -> Any:
            self.reads += 1  # one, whatever is in it; on the CPU it dispatches nothing
            return whole(x)

        self.patched = patch.object(Tensor, "tolist", tolist)
        self.patched.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.patched.stop()
        super().__exit__(*error)
