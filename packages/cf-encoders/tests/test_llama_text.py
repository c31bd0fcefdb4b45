"""A tiny random Llama 3 on disk, with grouped queries and a byte-level BPE tokenizer trained here."""

import json

import pytest
import torch
from cf_encoders import language_model
from cf_encoders.language_models.llama import LlamaText
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers", reason="a test dependency: cf-encoders[transformers]")

FLOAT64 = 1e-6  # transformers keeps some of its constants in float32
N = 11
CAPTIONS = ["A dog, left!", "a cat", "cats and dogs " * 20, "", "größe 犬"]
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=50,
        rope_theta=500_000.0,
    )
    model = transformers.LlamaForCausalLM(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory):
    """As Llama 3 lies on the hub: <bos> is added in front, no <eos> behind, and there is no padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    path = tmp_path_factory.mktemp("llama")
    llama.save_pretrained(path)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["a dog left of two cats and dogs"] * 3, trainer)
    tokenizer.add_special_tokens([BOS, EOS, "<|reserved_special_token_0|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[BOS, "$A"], special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS
    ).save_pretrained(path)
    return path


def test_features_of_tokens_are_those_of_bos_caption_eos_alone(folder, llama):
    """The oracle reads each caption alone, without any padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    features = LlamaText(folder, N, dtype=torch.float64)(CAPTIONS)
    llama.double()
    for caption, tokens, mask in zip(CAPTIONS, features.tokens, features.mask, strict=True):
        words = tokenizer(caption, add_special_tokens=False).input_ids[: N - 2]
        ids = torch.tensor([[tokenizer.bos_token_id, *words, tokenizer.eos_token_id]])
        with torch.no_grad():
            expected = llama.model(ids).last_hidden_state[0]
        assert mask.tolist() == [True] * len(expected) + [False] * (N - len(expected))
        torch.testing.assert_close(tokens[: len(expected)], expected, atol=FLOAT64, rtol=FLOAT64)
    llama.float()


def test_no_token_depends_on_what_the_padding_is(folder):
    ours, other = LlamaText(folder, N), LlamaText(folder, N, pad_token="<|reserved_special_token_0|>")
    a, b = ours(CAPTIONS), other(CAPTIONS)
    assert torch.equal(a.tokens[a.mask], b.tokens[b.mask])
    assert not torch.equal(a.tokens, b.tokens)
    assert (ours.tokenizer.pad_id, other.tokenizer.pad_id) == (
        ours.tokenizer.backend.token_to_id(EOS),
        ours.tokenizer.backend.token_to_id("<|reserved_special_token_0|>"),
    )


def test_the_output_layer_is_never_built_and_unknown_tokens_are_named(folder, llama):
    model = LlamaText(folder, N)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in llama.model.parameters())
    assert language_model("llama", folder, max_tokens=N).fingerprint == model.fingerprint
    assert model.too_long(["a", "z" * 9, "z" * 10]) == [2]
    with pytest.raises(ValueError, match=r"has no pad token '<pad>'"):
        LlamaText(folder, pad_token="<pad>")
    with pytest.raises(ValueError, match=r"max_tokens must be in \[3, 50\], got 51"):
        LlamaText(folder, 51)


def test_the_fingerprint_changes_whenever_the_features_would(folder, tmp_path):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    weights = load_file(folder / "model.safetensors")
    nudged = {name: w + 1e-3 * name.endswith("q_proj.weight") for name, w in weights.items()}
    save_file(nudged, tmp_path / "nudged", metadata={"format": "pt"})
    config = json.loads(files["config.json"])
    faster = {**config, "rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}

    def fingerprint(name, changed, **settings):
        (tmp_path / name).mkdir()
        for file, data in {**files, **changed}.items():
            (tmp_path / name / file).write_bytes(data)
        return LlamaText(tmp_path / name, **{"max_tokens": N, **settings}).fingerprint

    moved = {"config.json": json.dumps({**config, "_name_or_path": "elsewhere"}).encode()}
    prints = [
        fingerprint("moved", moved),
        fingerprint("shorter", {}, max_tokens=N - 1),
        fingerprint("coarser", {}, dtype=torch.bfloat16),
        fingerprint("padded otherwise", {}, pad_token="<|reserved_special_token_0|>"),
        fingerprint("one merge less", {"tokenizer.json": without_last_merge(files["tokenizer.json"])}),
        fingerprint("turning faster", {"config.json": json.dumps(faster).encode()}),
        fingerprint("other weights", {"model.safetensors": (tmp_path / "nudged").read_bytes()}),
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == LlamaText(folder, N).fingerprint
    assert all(len(one) == 64 for one in prints)


def without_last_merge(tokenizer):
    values = json.loads(tokenizer)
    values["model"]["merges"].pop()
    return json.dumps(values).encode()
