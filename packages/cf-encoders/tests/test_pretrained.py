import importlib
import json
import pkgutil
import stat
import sys
from dataclasses import replace
from importlib.metadata import version
from types import ModuleType

import cf_encoders
import pytest
import safetensors.torch
import torch
from cf_encoders import TextVE, TextVEConfig, pretrained, text_ve_preset
from cf_encoders.captions.autoencoder import CaptionAutoencoder
from cf_encoders.captions.autoencoder_config import CaptionAutoencoderConfig
from cf_encoders.captions.autoregressive import AutoregressiveDecoder
from cf_encoders.captions.decoder import CaptionDecoder
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.captions.feature_decoder import FeatureDecoder, FeatureDecoderConfig
from cf_encoders.image_ve import ImageVE
from cf_encoders.image_ve_config import ImageVEConfig
from cf_encoders.pretrained import CONFIG, MODELS, WEIGHTS, Pretrained, from_pretrained, save_pretrained
from cf_encoders.towers.convolutional import ImageTower, ImageTowerConfig
from cf_encoders.towers.released import ReleasedTower, ReleasedTowerConfig
from cf_encoders.towers.text import TextTower, TextTowerConfig
from cf_encoders.towers.vit import ViTTower, ViTTowerConfig
from torch import nn

COMPACT = TextVEConfig(6, 5, (3, 4, 8), width=8, heads=2, depth=1, mlp_hidden=12, patch=4, conv_depth=1)
IMAGE, LATENT = (3, 8, 16), (3, 4, 8)
READER = {"latent": LATENT, "max_tokens": 4, "patch": 4, "width": 8, "heads": 2, "depth": 1, "mlp_hidden": 12}
CAPTION = CaptionDecoderConfig(**READER, vocabulary=9)
EXAMPLES = {
    "compact": (TextVE, COMPACT),
    "paper": (TextVE, replace(COMPACT, kind="paper", bottleneck=3)),
    "released": (TextVE, replace(COMPACT, kind="released", bottleneck=4, token_width=12, dropout=0.1)),
    "plain encoder": (TextVE, replace(COMPACT, variation="none")),
    "image VE": (ImageVE, ImageVEConfig(IMAGE, LATENT, widths=(8, 16))),
    "image tower": (ImageTower, ImageTowerConfig(IMAGE, LATENT, stages=(8, 16), hidden=12)),
    "vit": (ViTTower, ViTTowerConfig(IMAGE, LATENT, width=8, depth=1, heads=2, positions="fixed", hidden=12)),
    "released tower": (
        ReleasedTower,
        ReleasedTowerConfig(LATENT, 8, 4, width=16, depth=1, heads=2, hidden=12),
    ),
    "text tower": (TextTower, TextTowerConfig(6, LATENT, width=8, heads=2, mlp_hidden=12, hidden=12)),
    "caption decoder": (CaptionDecoder, CAPTION),
    "autoregressive decoder": (AutoregressiveDecoder, CAPTION),
    "feature decoder": (FeatureDecoder, FeatureDecoderConfig(**READER, token_width=6)),
    "caption autoencoder": (CaptionAutoencoder, CaptionAutoencoderConfig(COMPACT, CAPTION)),
}


@pytest.fixture(autouse=True)
def _own_models(monkeypatch):
    """A model that a test defines is known as long as the test runs."""
    monkeypatch.setattr(pretrained, "MODELS", dict(MODELS))


def made(name: str = "compact", dtype: torch.dtype = torch.float32) -> nn.Module:
    """One of EXAMPLES with every value away from where it starts."""
    torch.manual_seed(0)
    model_class, config = EXAMPLES[name]
    model = model_class(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_model_comes_back_to_the_bit_in_its_precision(name, dtype, tmp_path):
    model = made(name, dtype)
    save_pretrained(model, tmp_path / "new" / "folder")
    again = from_pretrained(str(tmp_path / "new" / "folder"))
    assert (type(again), again.config) == (type(model), model.config)
    assert same(model, again)
    assert not again.training
    trained = [parameter.requires_grad for parameter in model.parameters()]
    assert [parameter.requires_grad for parameter in again.parameters()] == trained
    assert all(parameter.dtype == dtype for parameter in again.parameters())


def test_a_model_that_came_back_encodes_as_before(tmp_path, generator):
    model = made("released").eval()
    save_pretrained(model, tmp_path)
    tokens, mask = torch.randn(2, 5, 12, generator=generator), torch.arange(5) < torch.tensor([[5], [2]])
    assert torch.equal(from_pretrained(tmp_path)(tokens, mask).mean, model(tokens, mask).mean)


def test_the_folder_holds_plain_weights_and_a_config_that_names_its_model(tmp_path):
    model = made()
    save_pretrained(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, CONFIG}
    written = json.loads((tmp_path / CONFIG).read_text())
    own = {"model": "TextVE", "cf_encoders": version("cf-encoders")}
    assert written == own | json.loads(json.dumps(COMPACT.to_dict()))
    assert safetensors.torch.load_file(tmp_path / WEIGHTS).keys() == model.state_dict().keys()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1, "safetensors' own files are for their owner only"


def test_the_precision_and_device_asked_for_are_those_of_the_model(tmp_path):
    save_pretrained(made(), tmp_path)
    again = from_pretrained(tmp_path, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert same(again, made().bfloat16())
    assert all(parameter.is_meta for parameter in from_pretrained(tmp_path, device="meta").parameters())


def test_nothing_is_drawn_while_loading(tmp_path):
    save_pretrained(made(), tmp_path)
    before = torch.get_rng_state()
    from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_is_independent_of_its_file(tmp_path):
    save_pretrained(made(), tmp_path)
    again = from_pretrained(tmp_path)
    with (tmp_path / WEIGHTS).open("rb+") as file:
        file.write(bytes((tmp_path / WEIGHTS).stat().st_size))
    assert same(again, made())


def test_parameters_that_share_memory_or_lie_across_it_are_written_one_by_one(tmp_path, generator):
    model = made()
    model.body.logvar.weight = model.body.mean.weight
    model.body.queries = nn.Parameter(torch.randn(8, 2, generator=generator).T)
    save_pretrained(model, tmp_path)
    assert same(from_pretrained(tmp_path), model)


def test_a_model_knows_how_to_save_and_load_itself(tmp_path):
    class Named(TextVE, Pretrained, config=TextVEConfig): ...

    model = Named(COMPACT)
    model.save_pretrained(tmp_path)
    again = Named.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(again) is Named
    assert same(again, model.double())


def test_the_method_of_a_class_does_not_load_another(tmp_path):
    class Named(TextVE, Pretrained, config=TextVEConfig): ...

    save_pretrained(made(), tmp_path)
    with pytest.raises(TypeError, match=r"holds a TextVE, not a Named; use TextVE.from_pretrained"):
        Named.from_pretrained(tmp_path)


def test_a_model_without_values_or_of_an_unknown_class_is_not_written(tmp_path):
    with torch.device("meta"):
        model = TextVE(COMPACT)
    with pytest.raises(ValueError, match=r"body\.\S+ is on the meta device and has no value"):
        save_pretrained(model, tmp_path / "new")
    with pytest.raises(ValueError, match=r"unknown model 'Linear'; known: .*TextVE"):
        save_pretrained(nn.Linear(2, 3), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failing", ["weights", "config"])
def test_a_failed_write_leaves_the_old_model(failing, tmp_path, monkeypatch):
    save_pretrained(made(), tmp_path)

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        where = {"weights": (safetensors.torch, "save_file"), "config": (json, "dumps")}[failing]
        patch.setattr(*where, full_disk)
        with pytest.raises(OSError, match="no space left"):
            save_pretrained(made("paper"), tmp_path)
    again = from_pretrained(tmp_path)
    assert same(again, made())
    assert again.config == COMPACT
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, CONFIG}


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named_with_what_to_do(file, tmp_path):
    save_pretrained(made(), tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {file}; write the folder with save_pretrained"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 8}, r"unknown TextVEConfig keys \['widht'\]; known: token_width, max_tokens, latent"),
        ({"model": "UNet"}, "unknown model 'UNet'; known: .*TextVE"),
        ({"model": None}, r"config.json lacks 'model', the kind of model; known: .*TextVE"),
        ({"latent": None}, "config.json: .*'latent'"),
        ({"token_width": 7}, r"3 of the wrong shape: .*body.embed.norm.weight is \(6,\), expected \(7,\)"),
    ],
)
def test_a_config_that_does_not_belong_is_named(change, message, tmp_path):
    save_pretrained(made(), tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text()) | change
    kept = {key: value for key, value in values.items() if value is not None}
    (tmp_path / CONFIG).write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=message):
        from_pretrained(tmp_path)


def test_weights_that_do_not_belong_are_named(tmp_path):
    save_pretrained(made(), tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / WEIGHTS)
    tensors["body.query"] = tensors.pop("body.queries")
    safetensors.torch.save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 missing: body.queries; 1 unexpected: body.query$"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "message"), [(WEIGHTS, "is damaged, fetch or write it again"), (CONFIG, "is not JSON")]
)
def test_a_damaged_file_is_named(file, message, tmp_path):
    save_pretrained(made(), tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{file} {message}"):
        from_pretrained(tmp_path)


def hub_with(snapshot_download):
    """A huggingface_hub that knows this one function."""
    hub = ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    return hub


def test_a_hub_id_is_downloaded_where_no_folder_has_the_name(tmp_path, monkeypatch):
    model, asked = made(), []

    def snapshot_download(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision, allow_patterns))
        save_pretrained(model, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_with(snapshot_download))
    monkeypatch.chdir(tmp_path)
    assert same(from_pretrained("someone/text-ve", revision="v2"), model)
    assert asked == [("someone/text-ve", "v2", [CONFIG, WEIGHTS])]
    save_pretrained(model, "someone/text-ve")
    from_pretrained("someone/text-ve")
    assert len(asked) == 1, "a local folder comes first"
    with pytest.raises(ValueError, match="someone/text-ve is a local folder and has no revision 'v2'"):
        from_pretrained("someone/text-ve", revision="v2")


def test_an_id_that_the_hub_does_not_know_is_named(tmp_path, monkeypatch):
    def snapshot_download(*args, **kwargs):
        raise OSError("404 Client Error")

    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_with(snapshot_download))
    with pytest.raises(FileNotFoundError, match=r"no folder 'no/where', and the hub did not give it: 404"):
        from_pretrained("no/where")


def test_without_huggingface_hub_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"no folder 'no/where'.*pip install 'cf-encoders\[hub\]'"):
        from_pretrained("no/where")


def test_every_model_that_registers_has_an_example_here():
    """A row of EXAMPLES for each, so that all of them are seen to come back."""
    for module in pkgutil.walk_packages(cf_encoders.__path__, "cf_encoders."):
        importlib.import_module(module.name)
    registered = {kind for kind, (model, _) in MODELS.items() if model.__module__.startswith("cf_encoders.")}
    assert registered <= {model.__name__ for model, _ in EXAMPLES.values()}


def test_the_presets_survive_json():
    for name in ("released-512-t5", "compact-256", "paper-256"):
        config = text_ve_preset(name)
        assert TextVEConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
