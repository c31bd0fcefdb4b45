"""What torch asks of every registered op: its schema, shapes without values, tracing, the limits of its gradient."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from cf_transformer import kernels
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

OPS = torch.ops.cf_transformer
TOKENS, VECTOR = (2, 5, 16), (2, 1, 16)


def flat(results: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


def rms(x: Tensor, r: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    return kernels.add_td_norm(x, r, gamma, None, norm="rms")


def layer(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return kernels.add_td_norm(x, None, gamma, beta, norm="layer")[0]


def lerps(t: Tensor, *leaves: Tensor) -> list[Tensor]:
    return kernels.time_lerps([leaves[:4], leaves[4:]], t)


def concat(gamma: Tensor, beta: Tensor, *maps: Tensor) -> Tensor:
    return kernels.concat_td_norm(maps, gamma, beta)


CASES = {  # a function of tensors, and their shapes
    "rms": (rms, [TOKENS, TOKENS, (1, 1, 16)]),
    "layer": (layer, [TOKENS, VECTOR, VECTOR]),
    "time_lerps": (lerps, [(2,), *4 * [(2, 16)], *4 * [(3, 7)]]),
    "geglu": (kernels.geglu, [TOKENS]),
    "concat": (concat, [(2, 1, 32), (1, 1, 32), TOKENS, TOKENS]),
}
every_case = pytest.mark.parametrize("case", CASES)


def made(
    case: str, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[Callable, list[Tensor]]:
    function, shapes = CASES[case]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return function, [x.to(dtype).requires_grad_() for x in tensors]


def evaluated(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    """The results, and the gradients of a sum in which every number counts differently."""
    results = flat(function(*(1 * x for x in inputs)))
    loss = sum((result.double() * result.double().detach().cos()).sum() for result in results)
    return [*results, *torch.autograd.grad(loss, inputs)]


def interpreted(test: Callable) -> Callable:
    return pytest.mark.interpreter(pytest.mark.usefixtures("in_triton")(test))


@interpreted
@every_case
def test_one_graph_of_a_compiler_gives_what_eager_gives(case, generator):
    function, inputs = made(case, generator)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)
    for a, b in zip(evaluated(compiled, inputs), evaluated(function, inputs), strict=True):
        assert torch.equal(a, b)


@interpreted
@every_case
def test_a_checkpoint_gives_the_same_gradients(case, generator):
    function, inputs = made(case, generator)

    def again(*inputs: Tensor) -> Tensor:
        return checkpoint(function, *inputs, use_reentrant=False)

    for a, b in zip(evaluated(again, inputs), evaluated(function, inputs), strict=True):
        assert torch.equal(a, b)


@interpreted
@every_case
def test_autocast_changes_nothing(case, generator):
    function, inputs = made(case, generator)

    def cast(*inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return function(*inputs)

    for a, b in zip(evaluated(cast, inputs), evaluated(function, inputs), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


@interpreted
@every_case
def test_a_dispatch_mode_sees_the_op_and_not_what_is_inside(case, generator):
    seen = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    function, inputs = made(case, generator)
    with Record():
        function(*inputs)
    assert sum(name.startswith("cf_transformer.") for name in seen) == 1
    assert not any("empty" in name for name in seen)


@interpreted
@pytest.mark.parametrize("case", ["rms", "layer", "geglu"])  # torch has no such rule for a list of tensors
def test_gradients_come_in_batches(case, generator):
    function, inputs = made(case, generator, torch.float64)
    results = flat(function(*inputs))
    rows = [torch.randn(3, *y.shape, generator=generator, dtype=y.dtype) for y in results]
    batched = torch.autograd.grad(results, inputs, rows, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        single = torch.autograd.grad(results, inputs, [row[i] for row in rows], retain_graph=True)
        for a, b in zip(batched, single, strict=True):
            torch.testing.assert_close(a[i], b)


@interpreted
@every_case
def test_a_second_derivative_is_an_error_and_not_a_zero(case, generator):
    function, inputs = made(case, generator)
    results = flat(function(*inputs))
    with pytest.raises(RuntimeError, match=r"cannot be differentiated: .* kernels.using\('torch'\)"):
        torch.autograd.grad(results, inputs, [y.detach().cos() for y in results], create_graph=True)


@interpreted
def test_torch_checks_every_op(generator):
    checked = {name.partition(".")[0] for name in map(check, samples(generator))}
    assert checked == {f"cf_transformer::{name}" for name in OURS}


OURS = [
    f"{op}_{way}"
    for op in ("add_td_norm", "time_lerps", "geglu", "concat_td_norm")
    for way in ("forward", "backward")
]


def samples(generator: torch.Generator) -> Iterator[tuple[str, tuple]]:
    """Every op with arguments, with and without those that may be missing."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, r, gamma, beta = normal(*TOKENS), normal(*TOKENS), normal(*VECTOR), normal(1, 1, 16)
    for arguments in [(x, r, gamma, beta, "layer"), (x, None, gamma, None, "rms")]:
        yield "add_td_norm_forward", arguments
        y, s, centre, spread = OPS.add_td_norm_forward(*arguments)
        s = s if s.numel() else x
        yield "add_td_norm_backward", (y, r, s, gamma, centre, spread, True, True, arguments[-1])
        yield "add_td_norm_backward", (y, None, s, gamma, centre, spread, False, False, arguments[-1])
    t, leaves = torch.rand(3, generator=generator), [normal(*shape) for shape in 4 * [(2, 16)] + 4 * [(3, 7)]]
    yield "time_lerps_forward", (leaves, t)
    for wants_t in (True, False):
        yield "time_lerps_backward", (OPS.time_lerps_forward(leaves, t), leaves, t, wants_t)
    yield "geglu_forward", (x,)
    yield "geglu_backward", (r[..., :8], x)
    maps, gamma, beta = [normal(*TOKENS) for _ in range(3)], normal(2, 1, 48), normal(1, 1, 48)
    yield "concat_td_norm_forward", (maps, gamma, beta)
    y, centre, spread = OPS.concat_td_norm_forward(maps, gamma, beta)
    yield "concat_td_norm_backward", (y, maps, gamma, centre, spread, True, True)
    yield "concat_td_norm_backward", (y, maps, gamma, centre, spread, True, False)


def check(sample: tuple[str, tuple]) -> str:
    """By torch's own checks of schema, autograd, shapes and tracing."""
    name, arguments = sample
    op = getattr(OPS, name).default
    torch.library.opcheck(op, arguments)
    return op.name()


@pytest.mark.parametrize("name", OURS)
def test_an_op_neither_changes_nor_returns_what_it_is_given(name):
    schema = getattr(OPS, name).default._schema
    assert not schema.is_mutable
    assert all(value.alias_info is None for value in (*schema.arguments, *schema.returns))


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_are_known_without_values(case, dtype, generator, monkeypatch):
    """What comes out, forward and backward, is what torch gives, in shape and precision."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # it would run on the CPU, but nothing runs
    function, inputs = made(case, generator, dtype)
    with kernels.using("torch"):
        expected = evaluated(function, inputs)
    with FakeTensorMode() as mode, kernels.using("triton"):
        ours = evaluated(function, [mode.from_tensor(x) for x in inputs])
    for a, b in zip(ours, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
