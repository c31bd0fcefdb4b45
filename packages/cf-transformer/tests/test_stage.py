import pytest
import torch
from cf_transformer import DiMRConfig, Stage, StageConfig
from torch import nn


class Mark(nn.Module):
    """Stands in for block i: writes i into channel 0 and remembers the gain it was given."""

    def __init__(self, i: int) -> None:
        super().__init__()
        self.i = i
        self.gamma = None

    def forward(self, x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        self.gamma = gamma
        return torch.cat([torch.full_like(x[..., :1], self.i), x[..., 1:]], dim=-1)


class Fuse(nn.Module):
    """Stands in for the skip projection: keeps x, appends the popped block's mark to a list."""

    def __init__(self, popped: list[tuple[int, int]]) -> None:
        super().__init__()
        self.popped = popped

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        current, skip = pair.chunk(2, dim=-1)  # columns [current x | popped skip]
        self.popped.append((int(current[0, 0, 0]), int(skip[0, 0, 0])))
        return current


def make_stage(n_blocks: int, kind: str = "transformer") -> Stage:
    stage = StageConfig(kind, 4, n_blocks, patch=1, n_heads=1 if kind == "transformer" else None)
    tokens = StageConfig("transformer", 4, 1, patch=1, n_heads=1)
    return Stage(DiMRConfig(2, (2, 3), (tokens, stage), kernel_size=3), stage)


@pytest.mark.parametrize("n_blocks", [1, 3, 7])
def test_the_last_skip_pushed_is_popped_first(n_blocks):
    stage, popped = make_stage(n_blocks), []
    stage.blocks = nn.ModuleList(Mark(i) for i in range(n_blocks))
    stage.skips = nn.ModuleList(Fuse(popped) for _ in range(n_blocks // 2))
    list(stage.features(torch.zeros(1, 6, 4), torch.zeros(1)))
    half = n_blocks // 2
    assert popped == [(half + j, half - 1 - j) for j in range(half)]  # last in, first out


@pytest.mark.parametrize("kind", ["transformer", "convnext"])
def test_every_block_gets_its_own_gains_in_order(kind, shaken):
    stage = shaken(make_stage(5, kind))
    stage.blocks = nn.ModuleList(Mark(i) for i in range(5))
    t = torch.tensor([0.2, 0.8])
    list(stage.features(torch.zeros(2, 6, 4), t))
    assert torch.equal(torch.cat([block.gamma for block in stage.blocks]), stage.gains(t))


def test_the_maps_are_the_embedding_and_then_each_block_without_the_token():
    stage = make_stage(3)
    stage.blocks = nn.ModuleList(Mark(i + 10) for i in range(3))
    stage.skips = nn.ModuleList([Fuse([])])
    x, token = torch.randn(1, 6, 4), torch.full((1, 1, 4), 99.0)
    maps = list(stage.features(x, torch.zeros(1), token))
    assert torch.equal(maps[0], x)
    assert [m[0, 0, 0].item() for m in maps[1:]] == [10, 11, 12]
    for m in maps:
        assert torch.equal(m[..., 1:], x[..., 1:])


def test_maps_are_made_one_at_a_time():
    stage = make_stage(3)
    stage.blocks[1].forward = None  # calling it would fail
    maps = stage.features(torch.zeros(1, 6, 4), torch.zeros(1))
    assert next(maps).shape == next(maps).shape == (1, 6, 4)
