import os
import subprocess
import sys

import pytest
import torch
from cf_transformer import kernels
from cf_transformer.kernels import dispatch
from torch._subclasses import FakeTensorMode

LARGE, SMALL = (1, 2**10, 2**10), (1, 2**10, 2**9)
ON_CPU = "it is on cpu, not on a CUDA device"


@pytest.fixture(autouse=True)
def own_policy(monkeypatch):
    """A fresh policy on a machine without the interpreter, whatever the session is run with."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.setattr(dispatch, "_policy", dispatch._Policy())


@pytest.fixture
def on_h100(monkeypatch):
    """Tensors that say they are on an H100, and hold nothing."""
    monkeypatch.setattr(dispatch, "capability", lambda index: (9, 0))
    with FakeTensorMode():
        yield lambda shape, dtype=torch.bfloat16: torch.empty(shape, dtype=dtype, device="cuda")


def why(op: str = "op") -> str:
    (choice,) = (choice for choice in kernels.explain() if choice.op == op)
    return choice.why


def test_importing_the_package_and_its_kernels_does_not_import_triton():
    program = "import sys, cf_transformer, cf_transformer.kernels; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_cpu_runs_torch_and_explain_says_so():
    x, gamma = torch.ones(1, 2, 3), torch.ones(1, 1, 3)
    assert kernels.explain() == []
    kernels.add_td_norm(x, None, gamma, None, norm="rms")
    kernels.geglu(torch.ones(1, 2, 4))
    assert kernels.explain() == [
        kernels.Choice("add_td_norm", "torch", ON_CPU),
        kernels.Choice("geglu", "torch", ON_CPU),
    ]


def test_mode_torch_is_torch_even_where_the_kernel_could(on_h100):
    with kernels.using("torch"):
        assert not dispatch.by_triton("op", on_h100(LARGE))
    assert why() == "mode is torch"


def test_mode_auto_takes_the_kernel_unless_it_refuses_or_loses(on_h100):
    x = on_h100(LARGE)
    assert dispatch.by_triton("op", x)
    assert why() == "the kernel takes it"
    assert not dispatch.by_triton("op", x, refusal="it is odd")
    assert why() == "it is odd"
    assert not dispatch.by_triton("op", x, loses="it is short")
    assert why() == "it is short"


def test_mode_triton_overrules_what_loses_but_a_refusal_is_an_error(on_h100):
    with kernels.using("triton"):
        assert dispatch.by_triton("op", on_h100(LARGE), loses="it is short")
        assert why() == "mode is triton"
        with pytest.raises(
            ValueError, match="op cannot run its Triton kernel: it is odd; use mode auto or torch"
        ):
            dispatch.by_triton("op", on_h100(LARGE), refusal="it is odd")


def test_mode_triton_on_a_cpu_is_an_error():
    with kernels.using("triton"), pytest.raises(ValueError, match=ON_CPU):
        kernels.geglu(torch.ones(1, 2, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_a_precision_without_kernels_runs_torch(dtype, on_h100):
    assert not dispatch.by_triton("op", on_h100(LARGE, dtype))
    assert why() == f"it is {dtype}"


def test_a_device_older_than_the_kernels_runs_torch(on_h100, monkeypatch):
    monkeypatch.setattr(dispatch, "capability", lambda index: (7, 5))
    assert not dispatch.by_triton("op", on_h100(LARGE))
    assert why() == "the device has compute capability 7.5, below 8.0"


def test_without_triton_torch_runs(on_h100, monkeypatch):
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    assert not dispatch.by_triton("op", on_h100(LARGE))
    assert why() == "triton is not installed"


def test_the_interpreter_takes_what_is_on_the_cpu_and_nothing_else(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.by_triton("op", torch.ones(2))
    assert not dispatch.by_triton("op", torch.ones(2, device="meta"))
    assert why() == "it is on meta, and the interpreter works on the CPU"


def test_an_unknown_mode_lists_the_known(monkeypatch):
    with (
        pytest.raises(ValueError, match="unknown kernel mode 'cuda'; known: auto, torch, triton"),
        kernels.using("cuda"),
    ):
        pass
    monkeypatch.setenv(dispatch.VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"'fast'; known: auto, torch, triton .set by {dispatch.VARIABLE}"):
        dispatch._Policy()


def test_the_environment_sets_the_mode_of_the_process(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "torch")
    assert dispatch._Policy().mode == "torch"


def test_using_puts_the_mode_back_also_after_an_error(on_h100):
    with kernels.using("triton"):
        with pytest.raises(RuntimeError), kernels.using("torch"):
            raise RuntimeError
        dispatch.by_triton("op", on_h100(LARGE))
    assert why() == "mode is triton"
    dispatch.by_triton("op", on_h100(LARGE))
    assert why() == "the kernel takes it"


def test_few_elements_are_left_to_torch(on_h100):
    gamma = on_h100((1, 1, LARGE[-1]), torch.float32)
    for shape, backend in [(LARGE, "triton"), (SMALL, "torch")]:
        x = on_h100(shape)
        kernels.add_td_norm(x, x, gamma[..., : shape[-1]], None, norm="rms")
        kernels.geglu(x)
        kernels.concat_td_norm(x.chunk(2, dim=-1), gamma[..., : shape[-1]], gamma[..., : shape[-1]])
        assert [choice.backend for choice in kernels.explain()] == 3 * [backend]


def test_a_compiler_is_left_to_fuse_what_needs_no_gradient(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, parameter = torch.empty(LARGE, device="meta"), torch.empty(3, requires_grad=True)
    assert dispatch.not_worth_it(x.numel(), x, None).startswith("torch.compile fuses it")
    assert dispatch.not_worth_it(x.numel(), x, None, parameter) == ""
    with torch.no_grad():
        assert dispatch.not_worth_it(x.numel(), x, parameter).startswith("torch.compile fuses it")


def test_a_function_transform_gets_the_mathematics_in_torch(on_h100, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def f(x: torch.Tensor) -> torch.Tensor:
        assert not dispatch.by_triton("op", x)
        assert "torch.func" in why()
        return x.sum()

    x = torch.ones(2)
    torch.func.grad(f)(x)
    torch.vmap(f)(x[None])
    torch.func.jvp(f, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        f(torch.autograd.forward_ad.make_dual(x, x))
    assert dispatch.by_triton("op", x)


def test_a_compiled_function_follows_the_mode(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def f(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if dispatch.by_triton("op", x) else x - 1

    compiled, x = torch.compile(f, fullgraph=True, backend="eager"), torch.zeros(())
    assert compiled(x) == 1
    with kernels.using("torch"):
        assert compiled(x) == -1
    assert compiled(x) == 1


def test_the_device_of_a_compiled_function_is_asked_for_once(monkeypatch):
    def ask(index: int) -> tuple[int, int]:
        return (9, 0) if os.listdir() else (0, 0)  # as little traceable as a driver

    monkeypatch.setattr(torch.cuda, "get_device_capability", ask)
    compiled = torch.compile(lambda x: x + dispatch.capability(0)[0], fullgraph=True, backend="eager")
    assert compiled(torch.zeros(())) == 9
