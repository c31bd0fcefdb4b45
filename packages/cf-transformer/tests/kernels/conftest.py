"""What tests of kernels share: tolerances, an error measure, and buffers that show what a kernel forgets.

The same tests run in Triton's interpreter on the CPU (TRITON_INTERPRET=1, `nox -s kernels`) and, with
CF_KERNEL_DEVICE=cuda, on a GPU (`nox -s gpu`).
"""

import math
import os
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from cf_transformer.kernels import dispatch
from torch import Tensor

# norm-relative, against float64: a wrong formula cannot hide in float64, the others are a few roundings wide
TOLERANCE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
ON_GPU = os.environ.get("CF_KERNEL_DEVICE") == "cuda"
BAND = 64  # elements on either side of a guarded buffer; keeps 16-byte alignment
SENTINEL = -77.0  # exact in every dtype


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="a CPU runs Triton kernels in its interpreter only: nox -s kernels")
    for item in items:
        if item.get_closest_marker("interpreter") and not (dispatch.interpreted() or ON_GPU):
            item.add_marker(skip)


def pytest_configure() -> None:
    if ON_GPU:
        torch.set_default_device("cuda")
        dispatch.KERNEL_DTYPES = (*dispatch.KERNEL_DTYPES, torch.float64)
        TOLERANCE[torch.float64] = 1e-6  # numbers such as an epsilon reach a compiled kernel in fp32
    if dispatch.interpreted():
        spec = spec_from_file_location("interpreter_bf16", Path(__file__).with_name("interpreter_bf16.py"))
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        module.install()


@pytest.fixture
def tolerance() -> dict[torch.dtype, float]:
    return TOLERANCE


@pytest.fixture
def norm_error() -> Callable[[Tensor, Tensor], float]:
    """|a - b| / |b| in float64 (|a| where b is zero); NaN, which is below no tolerance, if either holds one."""

    def error(a: Tensor, b: Tensor) -> float:
        assert a.shape == b.shape
        difference, size = (a.double() - b.double()).norm(), b.double().norm()
        return (difference / size if size > 0 else difference).item()

    return error


@pytest.fixture
def in_triton() -> Iterator[None]:
    """Every op of the test runs its kernel."""
    with dispatch.using("triton"):
        yield


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every buffer a launcher takes by `new_empty` starts as NaN between two bands that nobody may write on."""
    buffers = []

    def new_empty(
        self: Tensor, *size: int, dtype: torch.dtype | None = None, device: object = None
    ) -> Tensor:
        shape = torch.Size(size[0] if size and not isinstance(size[0], int) else size)
        n = math.prod(shape)
        dtype = dtype or self.dtype
        buffer = torch.full((n + 2 * BAND,), SENTINEL if dtype.is_floating_point else -77, dtype=dtype)
        if dtype.is_floating_point:
            buffer[BAND : BAND + n] = math.nan
        buffers.append((buffer, n))
        return buffer[BAND : BAND + n].view(shape)

    monkeypatch.setattr(Tensor, "new_empty", new_empty)
    yield
    for buffer, n in buffers:
        assert (buffer[:BAND] == SENTINEL).all(), "a kernel wrote before its output"
        assert (buffer[BAND + n :] == SENTINEL).all(), "a kernel wrote behind its output"


@pytest.fixture
def in_nan() -> Callable[[Tensor], Tensor]:
    """The same values inside a larger NaN tensor: not contiguous but for the last axis, and reading on gives NaN."""

    def embed(x: Tensor) -> Tensor:
        room = torch.full([side + 2 for side in x.shape[:-1]] + [x.shape[-1] + 16], math.nan, dtype=x.dtype)
        inner = room[tuple(slice(1, 1 + side) for side in x.shape[:-1])][..., 8 : 8 + x.shape[-1]]
        return inner.copy_(x)

    return embed
