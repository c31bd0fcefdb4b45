"""One tiny random CLIP on disk, in transformers' and in open_clip's format, with CLIP's real vocabulary."""

import json

import pytest
import torch
from cf_encoders import LanguageModel, language_model, located
from cf_encoders.language import FrozenLanguageModel
from cf_encoders.language_models.clip import ClipText
from cf_encoders.language_models.open_clip_text import OpenClipText
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers", reason="a test dependency: cf-encoders[transformers]")
open_clip = pytest.importorskip("open_clip", reason="a test dependency: cf-encoders[open-clip]")

FLOAT64 = 1e-6  # transformers keeps some of its constants in float32
TWO_LIBRARIES = 1e-5  # float32 sums in another order
CAPTIONS = ["A dog, left of 2 cats!", "", "dog " * 100, "a b c d e f g h"]
TEXT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
VISION = {**TEXT, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8}


def random_clip():
    torch.manual_seed(0)
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    )
    for p in clip.parameters():
        torch.nn.init.normal_(p, std=0.2)  # the default leaves biases at 0 and gains at 1
    return clip.eval()


@pytest.fixture(scope="module")
def clip():
    return random_clip()


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    """As openai/clip-vit-large-patch14 lies on the hub: a whole CLIP and its tokenizer."""
    path = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(path)
    bpe = open_clip.SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(token, token): i for token, i in bpe.encoder.items()}
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def open_folder(clip, tmp_path_factory):
    """The same weights under open_clip's names, with its config."""
    path = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 24, "head_width": 8, "patch_size": 8},
        "text_cfg": {"width": 24, "heads": 3, "layers": 2, "mlp_ratio": 40 / 24},
    }
    theirs = open_clip.model.CLIP(**json.loads(json.dumps(config)))
    theirs.load_state_dict({**theirs.state_dict(), **open_clip_names(clip)})
    save_file(theirs.state_dict(), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return path


def open_clip_names(clip):
    text = {name.removeprefix("text_model."): w for name, w in clip.text_model.state_dict().items()}
    state = {
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "ln_final.weight": text["final_layer_norm.weight"],
        "ln_final.bias": text["final_layer_norm.bias"],
    }
    same = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for i in range(TEXT["num_hidden_layers"]):
        block, layer = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
        for kind in ("weight", "bias"):
            qkv = [text[f"{layer}self_attn.{x}_proj.{kind}"] for x in "qkv"]
            state[f"{block}attn.in_proj_{kind}"] = torch.cat(qkv)
            for theirs, ours in same.items():
                state[f"{block}{theirs}.{kind}"] = text[f"{layer}{ours}.{kind}"]
    return {name: weight.clone() for name, weight in state.items()}


@pytest.fixture(scope="module")
def model(folder):
    return ClipText(folder)


def test_features_are_transformers_last_hidden_states_of_its_own_ids_without_a_mask(folder, clip):
    n = 21
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=n, return_tensors="pt")
    with torch.no_grad():
        expected = clip.double().text_model(input_ids=read.input_ids).last_hidden_state
    clip.float()
    features = ClipText(folder, n, dtype=torch.float64)(CAPTIONS)
    torch.testing.assert_close(features.tokens, expected, atol=FLOAT64, rtol=FLOAT64)
    assert torch.equal(features.mask, read.attention_mask.bool())
    assert read.input_ids[2, -1] == tokenizer.eos_token_id  # cut, and its end kept
    assert read.attention_mask[2].all()


def test_both_libraries_give_the_same_features_also_of_padding(model, open_folder):
    theirs = language_model("open-clip", open_folder)
    assert isinstance(theirs, OpenClipText)
    for captions in (CAPTIONS, CAPTIONS[:1]):
        features, expected = theirs(captions), model(captions)
        assert features.tokens.shape == (len(captions), 77, 24)
        torch.testing.assert_close(features.tokens, expected.tokens, atol=TWO_LIBRARIES, rtol=TWO_LIBRARIES)
        assert torch.equal(features.mask, expected.mask)


def test_both_libraries_cut_at_the_same_place(folder, open_folder):
    ours, theirs = ClipText(folder, 7), OpenClipText(open_folder, max_tokens=7)
    torch.testing.assert_close(
        theirs(CAPTIONS).tokens, ours(CAPTIONS).tokens, atol=TWO_LIBRARIES, rtol=TWO_LIBRARIES
    )
    assert ours.too_long(["a b c d e", "a b c d e f"]) == theirs.too_long(["a b c d e", "a b c d e f"]) == [1]


def test_an_architecture_with_a_weight_file_is_the_folder(open_folder, tmp_path):
    config = json.loads((open_folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-clip-of-this-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip-of-this-test.json")
    weights = open_folder / "open_clip_model.safetensors"
    named = language_model("open-clip", f"tiny-clip-of-this-test@{weights}")
    found = OpenClipText(open_folder)
    assert torch.equal(named(CAPTIONS).tokens, found(CAPTIONS).tokens)
    assert named.fingerprint == found.fingerprint
    (tmp_path / "cut.safetensors").write_bytes(b"cut short")
    save_file({"ln_final.weight": torch.ones(24)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors does not hold the weights of tiny-clip"):
        OpenClipText("tiny-clip-of-this-test", tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="needs a local weight file, got checkpoint=openai"):
        OpenClipText("tiny-clip-of-this-test", "openai")


def test_open_clip_models_that_are_not_there_are_named(open_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json missing"):
        OpenClipText(tmp_path)
    with pytest.raises(ValueError, match="'ViT-L-41' is no folder and no open_clip architecture"):
        OpenClipText("ViT-L-41", tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="brings its own weights"):
        OpenClipText(f"local-dir:{open_folder}", tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"open_clip has no torch\.int8"):
        OpenClipText(open_folder, dtype=torch.int8)


def test_the_fingerprint_sees_what_open_clip_keeps_in_the_architecture(open_folder, tmp_path):
    """The same weights with the other GELU: what goes wrong when OpenAI's are loaded as plain ViT-L-14."""
    config = (open_folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(
        config.replace('"quick_gelu": true', '"quick_gelu": false')
    )
    (tmp_path / "open_clip_model.safetensors").symlink_to(open_folder / "open_clip_model.safetensors")
    right, wrong = OpenClipText(open_folder), OpenClipText(tmp_path)
    assert (right(CAPTIONS).tokens - wrong(CAPTIONS).tokens).abs().max() > 1e-3
    assert right.fingerprint != wrong.fingerprint
    assert OpenClipText(open_folder, max_tokens=76).fingerprint != right.fingerprint


def test_a_tower_that_sees_what_comes_is_refused(open_folder, tmp_path):
    config = json.loads((open_folder / "open_clip_config.json").read_text())
    config["model_cfg"]["custom_text"] = True
    config["model_cfg"]["text_cfg"]["no_causal_mask"] = True
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    weights = load_file(open_folder / "open_clip_model.safetensors")
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match="CustomTextCLIP is not CLIP's: no causal mask"):
        OpenClipText(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_near_and_its_features_are_float32(folder, open_folder, model, dtype):
    expected = model(CAPTIONS)
    for low in (ClipText(folder, dtype=dtype), OpenClipText(open_folder, dtype=dtype)):
        tokens = low(CAPTIONS).tokens
        assert tokens.dtype == torch.float32
        error = (tokens - expected.tokens).norm() / expected.tokens.norm()
        assert 1e-5 < error < 0.03  # not float32 in disguise, and the same model


def test_a_caption_does_not_depend_on_its_neighbours_or_the_batch_size(folder, model):
    together = model(CAPTIONS)
    in_threes = ClipText(folder, batch_size=3)
    for captions, expected in ((CAPTIONS, together.tokens), (CAPTIONS[1:2], together.tokens[1:2])):
        tokens = in_threes(captions).tokens
        torch.testing.assert_close(tokens, expected, atol=TWO_LIBRARIES, rtol=TWO_LIBRARIES)
    assert torch.equal(in_threes(CAPTIONS).mask, together.mask)
    assert model([]).tokens.shape == (0, 77, 24)
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        ClipText(folder, batch_size=0)


def test_it_is_frozen_also_inside_a_model_that_trains(model):
    assert isinstance(model, LanguageModel)
    assert isinstance(model, FrozenLanguageModel)
    head = torch.nn.Linear(24, 1)
    whole = torch.nn.ModuleDict({"language": model, "head": head}).train()
    assert not any(module.training for module in model.modules())
    head(whole["language"](["a dog"]).tokens).sum().backward()
    assert head.weight.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())


def test_one_bare_string_is_refused(model):
    with pytest.raises(TypeError, match="got the string 'a dog'; wrap it in a list"):
        model("a dog")


def test_what_a_folder_lacks_or_holds_instead_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no CLIPTextModel in .*config\.json missing"):
        ClipText(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"safetensors or \*\.bin, and tokenizer\.json or"):
        ClipText(tmp_path)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if name.endswith("final_layer_norm.bias"))
    save_file(
        {k: w for k, w in weights.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match=r"lacks 1 weights of CLIPTextModel: .*final_layer_norm\.bias"):
        ClipText(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(ValueError, match="holds a BertModel, not a CLIPTextModel"):
        ClipText(tmp_path)
    with pytest.raises(ValueError, match=r"max_tokens must be in \[3, 77\], got 78"):
        ClipText(folder, 78)


def test_a_hub_id_is_the_folder_it_was_downloaded_to(folder, tmp_path, monkeypatch, model):
    """A download as the hub's own cache keeps it; the network is switched off."""
    hub = pytest.importorskip("huggingface_hub", reason="a test dependency: cf-encoders[hub]")
    commit = "0123456789" * 4
    there = tmp_path / "models--someone--tiny-clip"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text(commit)
    (there / "snapshots").mkdir()
    (there / "snapshots" / commit).symlink_to(folder, target_is_directory=True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    fetched = language_model("clip", "someone/tiny-clip")
    assert torch.equal(fetched(CAPTIONS).tokens, model(CAPTIONS).tokens)
    with pytest.raises(FileNotFoundError, match="no folder 'someone/else', and the hub did not give it"):
        ClipText("someone/else")
    with pytest.raises(FileNotFoundError, match=r"no folder '/no/such'; give one, or a hub id"):
        ClipText("/no/such")


def test_a_missing_library_is_named_with_its_install_command(folder, open_folder, monkeypatch):
    def missing(library):
        raise ImportError(library)

    monkeypatch.setattr(located, "import_module", missing)
    with pytest.raises(
        ImportError, match=r"transformers is missing: pip install 'cf-encoders\[transformers\]'"
    ):
        ClipText(folder)
    with pytest.raises(ImportError, match=r"pip install 'cf-encoders\[open-clip\]'"):
        OpenClipText(open_folder)
    with pytest.raises(ImportError, match=r"pip install 'cf-encoders\[hub\]'"):
        ClipText("someone/tiny-clip")
