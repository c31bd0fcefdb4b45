"""Shape checks on for every test, and models whose every parameter matters."""

import os
import pkgutil
from collections.abc import Callable
from importlib.util import find_spec

import jaxtyping
import pytest

CHECK_SHAPES = os.environ.get("CF_NO_TYPECHECK") != "1"
if CHECK_SHAPES:
    folder = find_spec("cf_transformer").submodule_search_locations
    modules = [module.name for module in pkgutil.iter_modules(folder, "cf_transformer.")]
    for own_errors_under_test in ("config", "dit_config"):  # beartype's would come first
        modules.remove(f"cf_transformer.{own_errors_under_test}")
    # of the kernels what is plain torch: the compiler traces the launchers, and @triton.jit reads source code
    modules.remove("cf_transformer.kernels")
    modules += ["cf_transformer.kernels.reference", "cf_transformer.kernels.reference_attention"]
    jaxtyping.install_import_hook(modules, "beartype.beartype")

import torch  # noqa: E402
from cf_transformer import DiMRConfig, StageConfig  # noqa: E402
from torch import nn  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHECK_SHAPES:
        skip = pytest.mark.skip(
            reason="run-time shape checks break torch.compile: nox -s compile runs it without them"
        )
        for item in items:
            if item.get_closest_marker("compile"):
                item.add_marker(skip)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator(torch.get_default_device()).manual_seed(0)


@pytest.fixture
def shaken(generator: torch.Generator) -> Callable[[nn.Module], nn.Module]:
    """Move every parameter off its initial value, so that zeros, ones and twins hide no mistake."""

    def shake(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(0.2 * noise)
        return module

    return shake


@pytest.fixture
def kept_by() -> Callable[[Callable[[], torch.Tensor], list[torch.Tensor]], int]:
    """Count the bytes that a computation keeps for its backward pass, of what is not alive anyway."""

    def kept_by(run: Callable[[], torch.Tensor], alive: list[torch.Tensor]) -> int:
        kept = {}

        def note(x: torch.Tensor) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            assert run().requires_grad
        for x in alive:
            kept.pop(x.untyped_storage().data_ptr(), None)
        return sum(storage.nbytes() for storage in kept.values())

    return kept_by


@pytest.fixture
def config() -> DiMRConfig:
    """Three stages on an odd, non-square grid: 1 x 3, 2 x 6 and 6 x 18 cells."""
    return DiMRConfig(
        channels=3,
        size=(6, 18),
        stages=(
            StageConfig("transformer", 8, 3, patch=6, n_heads=2),
            StageConfig("convnext", 6, 3, patch=3),
            StageConfig("convnext", 4, 1, patch=1),
        ),
        kernel_size=3,
    )
