import json
import stat
import sys
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from cf_transformer import DiMR, pretrained
from cf_transformer.cross_attention_dimr import CrossAttentionConfig, CrossAttentionDiMR
from cf_transformer.dit import DiT
from cf_transformer.dit_config import DiTConfig
from cf_transformer.pretrained import CONFIG, MODELS, WEIGHTS, from_pretrained, save_pretrained
from torch import nn


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_model_comes_back_to_the_bit_in_its_precision(dtype, config, shaken, generator, tmp_path):
    model = shaken(DiMR(config, generator)).to(dtype)
    save_pretrained(model, tmp_path / "new" / "folder")
    again = from_pretrained(str(tmp_path / "new" / "folder"))
    assert type(again) is DiMR
    assert again.config == config
    assert same(model, again)
    assert all(parameter.dtype == dtype and parameter.requires_grad for parameter in again.parameters())


def test_every_switch_of_the_config_comes_back(config, generator, tmp_path):
    config = replace(config, indicator="released", activation="silu", attention="matmul", mlp_ratio=1.5)
    model = DiMR(config, generator)
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    x_t, t = torch.randn(2, 3, 6, 18, generator=generator), torch.rand(2, generator=generator)
    assert torch.equal(again(x_t, t), model(x_t, t))


def test_every_kind_of_model_comes_back(config, shaken, generator, tmp_path):
    text = CrossAttentionConfig(config, context_width=5)
    token = DiTConfig(channels=3, size=(6, 10), d_model=12, n_blocks=2, n_heads=3)
    models = DiMR(config, generator), CrossAttentionDiMR(text, generator), DiT(token, generator)
    for model in map(shaken, models):
        folder = tmp_path / type(model).__name__
        save_pretrained(model, folder)
        again = from_pretrained(folder)
        assert (type(again), again.config) == (type(model), model.config)
        assert same(again, model)
    assert {path.name for path in tmp_path.iterdir()} == MODELS.keys()


def test_the_folder_holds_plain_weights_and_a_config_that_names_its_model(config, generator, tmp_path):
    model = DiMR(config, generator)
    save_pretrained(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, CONFIG}
    written = json.loads((tmp_path / CONFIG).read_text())
    assert written == {"model": "DiMR", "cf_transformer": version("cf-transformer"), **config.to_dict()}
    tensors = safetensors.torch.load_file(tmp_path / WEIGHTS)
    assert tensors.keys() == model.state_dict().keys()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1, "safetensors' own files are for their owner only"


def test_the_precision_and_device_asked_for_are_those_of_the_model(config, generator, tmp_path):
    model = DiMR(config, generator)
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert same(again, model.bfloat16())
    assert all(parameter.is_meta for parameter in from_pretrained(tmp_path, device="meta").parameters())


def test_nothing_is_drawn_while_loading(config, generator, tmp_path):
    save_pretrained(DiMR(config, generator), tmp_path)
    before = torch.get_rng_state()
    from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_is_independent_of_its_file(config, generator, tmp_path):
    model = DiMR(config, generator)
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    with (tmp_path / WEIGHTS).open("rb+") as file:
        file.write(bytes((tmp_path / WEIGHTS).stat().st_size))
    assert same(again, model)


def test_parameters_that_share_memory_or_lie_across_it_are_written_one_by_one(config, generator, tmp_path):
    model = DiMR(config, generator)
    first, second, _ = model.stages[0].blocks
    second.attention.out.weight = first.attention.out.weight
    first.attention.qkv.weight = nn.Parameter(torch.randn(8, 24, generator=generator).T)
    save_pretrained(model, tmp_path)
    assert same(from_pretrained(tmp_path), model)


@pytest.fixture
def named(monkeypatch) -> type[DiMR]:
    """Another kind of model, known beside DiMR as long as the test runs."""
    monkeypatch.setattr(pretrained, "MODELS", dict(MODELS))

    class Named(DiMR): ...

    return Named


def test_a_model_knows_how_to_save_and_load_itself(named, config, generator, tmp_path):
    model = named(config, generator)
    model.save_pretrained(tmp_path)
    again = named.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(again) is named
    assert same(again, model.double())


def test_the_method_of_a_class_does_not_load_another(named, config, generator, tmp_path):
    save_pretrained(DiMR(config, generator), tmp_path)
    with pytest.raises(TypeError, match=r"holds a DiMR, not a Named; use DiMR.from_pretrained"):
        named.from_pretrained(tmp_path)


def test_a_model_without_values_or_of_an_unknown_class_is_not_written(config, tmp_path):
    with torch.device("meta"):
        model = DiMR(config)
    with pytest.raises(ValueError, match="conditional is on the meta device and has no value"):
        save_pretrained(model, tmp_path / "new")
    with pytest.raises(ValueError, match="unknown model 'Linear'; known: DiMR"):
        save_pretrained(nn.Linear(2, 3), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failing", ["weights", "config"])
def test_a_failed_write_leaves_the_old_model(failing, config, generator, tmp_path, monkeypatch):
    old = DiMR(config, generator)
    save_pretrained(old, tmp_path)

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    new = DiMR(replace(config, activation="silu"), generator)
    with monkeypatch.context() as patch:
        where = {"weights": (safetensors.torch, "save_file"), "config": (json, "dumps")}[failing]
        patch.setattr(*where, full_disk)
        with pytest.raises(OSError, match="no space left"):
            save_pretrained(new, tmp_path)
    again = from_pretrained(tmp_path)
    assert same(again, old)
    assert again.config == config
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, CONFIG}


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named_with_what_to_do(file, config, generator, tmp_path):
    save_pretrained(DiMR(config, generator), tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {file}; write the folder with save_pretrained"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chanels": 3}, "unknown DiMRConfig key 'chanels'; known: channels, size, stages"),
        ({"model": "UNet"}, "unknown model 'UNet'; known: DiMR"),
        ({"model": None}, r"config.json lacks 'model', the kind of model; known: DiMR"),
        ({"size": None}, "DiMRConfig lacks 'size'"),
        ({"channels": 4}, r"9 of the wrong shape: .*heads.0.conv.bias is \(3,\), expected \(4,\)"),
    ],
)
def test_a_config_that_does_not_belong_is_named(change, message, config, generator, tmp_path):
    save_pretrained(DiMR(config, generator), tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text()) | change
    (tmp_path / CONFIG).write_text(
        json.dumps({key: value for key, value in values.items() if value is not None})
    )
    with pytest.raises(ValueError, match=message):
        from_pretrained(tmp_path)


def test_weights_that_do_not_belong_are_named(config, generator, tmp_path):
    save_pretrained(DiMR(config, generator), tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / WEIGHTS)
    tensors["indicator.null"] = tensors.pop("indicator.unconditional")
    safetensors.torch.save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(
        ValueError, match=r"1 missing: indicator.unconditional; 1 unexpected: indicator.null$"
    ):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "message"), [(WEIGHTS, "is damaged, fetch or write it again"), (CONFIG, "is not JSON")]
)
def test_a_damaged_file_is_named(file, message, config, generator, tmp_path):
    save_pretrained(DiMR(config, generator), tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{file} {message}"):
        from_pretrained(tmp_path)


def test_a_hub_id_is_downloaded_where_no_folder_has_the_name(config, generator, tmp_path, monkeypatch):
    model, asked = DiMR(config, generator), []

    def snapshot_download(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision, allow_patterns))
        save_pretrained(model, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    monkeypatch.chdir(tmp_path)
    assert same(from_pretrained("someone/dimr", revision="v2"), model)
    assert asked == [("someone/dimr", "v2", [CONFIG, WEIGHTS])]
    save_pretrained(model, "someone/dimr")
    from_pretrained("someone/dimr")
    assert len(asked) == 1, "a local folder comes first"
    with pytest.raises(ValueError, match="someone/dimr is a local folder and has no revision 'v2'"):
        from_pretrained("someone/dimr", revision="v2")


def test_an_id_that_the_hub_does_not_know_is_named(tmp_path, monkeypatch):
    def snapshot_download(*args, **kwargs):
        raise OSError("404 Client Error")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(FileNotFoundError, match=r"no folder 'no/where', and the hub did not give it: 404"):
        from_pretrained("no/where")


def test_without_huggingface_hub_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"no folder 'no/where'.*pip install cf-transformer\[hub\]"):
        from_pretrained("no/where")
