"""CLIP score: the conventions on embeddings known by hand, and the adapters on tiny random models."""

import json
import math
from pathlib import Path

import pytest
import torch
from cf_eval.clip_encoders import ClipEncoder, open_clip_encoder, shorter_side_to, transformers_clip_encoder
from cf_eval.clip_score import CONVENTIONS, ClipScore
from cf_eval.images.protocols import CLIP_MEAN, CLIP_STD
from torch import Tensor

EXACT = 1e-12
FLOAT32 = 1e-5  # embeddings come from float32 networks
SAYINGS = {
    "north": (0.0, 1.0, 0.0),
    "south": (0.0, -1.0, 0.0),
    "east": (1.0, 0.0, 0.0),
    "north-east": (1.0, 1.0, 0.0),
    "west": (-1.0, 0.1, 0.0),
}


def pixels_back(x: Tensor) -> Tensor:
    return x * torch.tensor(CLIP_STD).view(3, 1, 1) + torch.tensor(CLIP_MEAN).view(3, 1, 1)


def compass(heard: list[str] | None = None, seen: list[Tensor] | None = None) -> ClipEncoder:
    """Embeds a picture by its mean colour, grey being nothing, and a text by its last word."""

    def pixels(x: Tensor) -> Tensor:
        back = pixels_back(x)
        if seen is not None:
            seen.append(back)
        return (back.mean((2, 3)) - 0.5).double()

    def texts(sentences):
        if heard is not None:
            heard.extend(sentences)
        return torch.tensor([SAYINGS[s.split()[-1]] for s in sentences], dtype=torch.float64)

    return ClipEncoder("compass", 8, pixels, texts, {"clip_sha256": "0" * 8})


def picture(red: float, green: float, side: int = 12) -> Tensor:
    """A plain picture whose embedding is (red, green, 0)."""
    colour = torch.tensor([0.5 + red, 0.5 + green, 0.5]).view(1, 3, 1, 1)
    return colour.expand(1, 3, side, side).contiguous()


def cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


# exact in bytes: (0.5 + x) * 255 is whole
UP, RIGHT = (0.0, 76.5 / 255), (76.5 / 255, 0.0)


def scored(convention: str, pairs, references=None):
    metric = ClipScore(compass(), convention)
    images = torch.cat([picture(*colour) for colour, _ in pairs])
    metric.add_batch(images, [text for _, text in pairs], references, value_range="0..1")
    return metric


def test_crossflow_is_the_mean_of_cosines_held_at_zero():
    pairs = [(UP, "north"), (UP, "north-east"), (UP, "south"), (RIGHT, "north")]
    metric = scored("crossflow", pairs)
    assert metric.per_pair() == pytest.approx([1, math.sqrt(0.5), 0, 0], abs=FLOAT32)
    assert metric.compute().value == pytest.approx((1 + math.sqrt(0.5)) / 4, abs=FLOAT32)


def test_hessel_is_two_and_a_half_times_crossflow():
    pairs = [(UP, "north"), (UP, "north-east"), (UP, "west"), (RIGHT, "south")]
    ours, theirs = scored("crossflow", pairs).per_pair(), scored("hessel", pairs).per_pair()
    # bytes of grey are 127.5 / 255, a rounding away from the floats
    assert theirs == pytest.approx([2.5 * value for value in ours], abs=0.03)


def test_torchmetrics_holds_the_mean_at_zero_and_not_the_pairs():
    metric = scored("torchmetrics", [(UP, "north"), (UP, "south"), (UP, "north-east")])
    expected = sum(row.caption for row in metric.samples.rows) / 3
    assert min(row.caption for row in metric.samples.rows) < -0.9
    assert metric.compute().value == pytest.approx(100 * expected, rel=EXACT)
    assert scored("torchmetrics", [(UP, "south")]).compute().value == 0
    assert scored("torchmetrics", [(UP, "south")]).per_pair()[0] < -90


def test_the_prefix_stands_before_captions_and_references_of_hessel_only():
    for convention, prefix in (("hessel", "A photo depicts "), ("crossflow", ""), ("torchmetrics", "")):
        heard: list[str] = []
        metric = ClipScore(compass(heard), convention)
        metric.add_batch(picture(*UP), ["north"], value_range="0..1")
        assert heard == [prefix + "north"]
    heard = []
    ClipScore(compass(heard), "hessel").add_batch(
        picture(*UP), ["north"], [["east", "west"]], value_range="0..1"
    )
    assert heard == ["A photo depicts " + word for word in ("north", "east", "west")]


def test_ref_clip_score_is_the_harmonic_mean_with_the_nearest_reference():
    pairs = [(UP, "north-east"), (UP, "north"), (UP, "south"), (RIGHT, "west")]
    references = [["south", "north", "west"], ["north"], ["north"], ["south", "east"]]
    metric = scored("hessel", pairs, references)
    nearest = [
        max(cosine(SAYINGS[text], SAYINGS[said]) for said in own)
        for (_, text), own in zip(pairs, references, strict=True)
    ]
    assert [row.reference for row in metric.samples.rows] == pytest.approx(nearest, abs=EXACT)
    expected = []
    for own, ref in zip(metric.per_pair(), nearest, strict=True):
        expected.append(2 / (1 / own + 1 / ref) if own > 0 and ref > 0 else 0)
    assert expected[2] == expected[3] == 0
    result = metric.compute()
    assert result.values["ref_clip_score"] == pytest.approx(sum(expected) / 4, rel=EXACT)
    assert result.values["clip_score"] == pytest.approx(sum(metric.per_pair()) / 4, rel=EXACT)


def test_crossflow_does_not_round_to_bytes_and_does_not_crop():
    seen: list[Tensor] = []
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    for convention, antialias in (("crossflow", True), ("crossflow_no_antialias", False)):
        ClipScore(compass(seen=seen), convention).add_batch(images, ["north"] * 2, value_range="0..1")
        expected = torch.nn.functional.interpolate(images, (8, 8), mode="bilinear", antialias=antialias)
        assert torch.allclose(seen[-1], expected, atol=1e-6)
    ClipScore(compass(seen=seen), "crossflow").add_batch(2 * images - 1, ["north"] * 2, value_range="-1..1")
    assert torch.allclose(seen[-1], seen[0], atol=1e-6)
    with pytest.raises(ValueError, match="pictures must be square, got 20 x 12"):
        ClipScore(compass(), "crossflow").add_batch(images[..., :12], ["north"] * 2, value_range="0..1")


def test_the_others_take_the_square_in_the_middle():
    seen: list[Tensor] = []
    image = torch.zeros(1, 3, 8, 14, dtype=torch.uint8)
    image[..., 3:11] = 255
    ClipScore(compass(seen=seen), "hessel").add_batch(image, ["north"])
    assert torch.allclose(seen[0], torch.ones(1, 3, 8, 8), atol=1e-6)


@pytest.mark.parametrize(("h", "w", "expected"), [(20, 31, (8, 12)), (31, 20, (12, 8)), (5, 5, (8, 8))])
def test_the_shorter_side_becomes_the_size_and_the_longer_rounds_down(h, w, expected):
    assert shorter_side_to(8, h, w) == expected


def test_where_the_margins_are_odd_torchvision_rounds_to_even_and_transformers_down():
    image = torch.arange(11, dtype=torch.uint8).expand(1, 3, 8, 11).contiguous()
    starts = {}
    for convention in ("hessel", "torchmetrics"):
        seen: list[Tensor] = []
        ClipScore(compass(seen=seen), convention).add_batch(image, ["north"])
        starts[convention] = round(float(seen[0][0, 0, 0, 0]) * 255)
    assert starts == {"hessel": 2, "torchmetrics": 1}


def test_ranks_and_batches_give_the_whole_exactly():
    g = torch.Generator().manual_seed(1)
    images = torch.rand(7, 3, 9, 9, generator=g)
    words = [list(SAYINGS)[i % 5] for i in range(7)]
    ids = [f"{i}.png" for i in range(7)]
    whole = ClipScore(compass(), "crossflow")
    whole.add_batch(images, words, value_range="0..1", ids=ids, batch_size=3)
    parts = [ClipScore(compass(), "crossflow") for _ in range(3)]
    parts[0].add_batch(images[:2], words[:2], value_range="0..1", ids=ids[:2])
    parts[2].add_batch(images[1:], words[1:], value_range="0..1", ids=ids[1:])
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute().values == pytest.approx(dict(whole.compute().values), rel=EXACT)
    assert parts[0].compute().details["duplicates_dropped"] == 1
    assert whole.gathered().compute() == whole.compute()


def test_the_result_names_convention_model_and_weights():
    result = scored("hessel", [(UP, "north")]).compute()
    assert result.protocol.startswith("hessel: 2.5 x max(cos, 0) per pair; prefix 'A photo depicts'")
    assert "compass, float32" in result.protocol
    assert result.details["clip_sha256"] == "00000000"


def test_misuse_is_named():
    with pytest.raises(ValueError, match="unknown CLIP score convention 'clip'; known: crossflow"):
        ClipScore(compass(), "clip")
    metric = ClipScore(compass(), "crossflow")
    with pytest.raises(ValueError, match="no pairs were added"):
        metric.compute()
    with pytest.raises(ValueError, match="1 images for 2 captions"):
        metric.add_batch(picture(*UP), ["north", "south"], value_range="0..1")
    with pytest.raises(ValueError, match="give a list"):
        metric.add_batch(picture(*UP), "n", value_range="0..1")
    with pytest.raises(
        ValueError, match="RefCLIPScore is defined for the convention 'hessel', not 'crossflow'"
    ):
        metric.add_batch(picture(*UP), ["north"], [["north"]], value_range="0..1")
    with pytest.raises(ValueError, match=r"outside of 0\.\.1"):
        metric.add_batch(2 * picture(*UP), ["north"], value_range="0..1")
    with pytest.raises(ValueError, match=r"floats|uint8"):
        metric.add_batch(picture(*UP), ["north"])
    other = ClipScore(compass(), "hessel")
    with pytest.raises(ValueError, match=r"references of image 0 must be a list of captions, got \[\]"):
        other.add_batch(picture(*UP), ["north"], [[]], value_range="0..1")
    with pytest.raises(ValueError, match="cannot merge CLIP scores 'hessel' of compass into 'crossflow'"):
        metric.merge(other)
    other.add_batch(picture(*UP), ["north"], [["north"]], value_range="0..1")
    other.add_batch(picture(*UP), ["north"], value_range="0..1")
    with pytest.raises(ValueError, match="1 of 2 pairs have references"):
        other.compute()


TINY_OPEN_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.mark.peer
def test_a_model_of_open_clip_keeps_the_end_token_of_long_captions(tmp_path: Path):
    open_clip = pytest.importorskip("open_clip")
    (tmp_path / "cf-eval-tiny.json").write_text(json.dumps(TINY_OPEN_CLIP))
    open_clip.add_model_config(tmp_path / "cf-eval-tiny.json")
    torch.manual_seed(0)
    model = open_clip.create_model("cf-eval-tiny").eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    encoder = open_clip_encoder("cf-eval-tiny", tmp_path / "weights.pt")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        expected = model.encode_image((images - mean) / std, normalize=True)
    assert torch.allclose(encoder.pictures(images).float(), expected, atol=FLOAT32)
    assert encoder.image_size == 16
    # 10 words fill the 12 slots with start and end: the rest is cut, the end is not
    full, longer = " ".join(["cat"] * 10), " ".join(["cat"] * 40)
    assert torch.equal(encoder.texts([full]), encoder.texts([longer]))
    assert not torch.allclose(encoder.texts(["cat"]), encoder.texts(["dog"]), atol=1e-3)
    metric = ClipScore(encoder, "crossflow")
    metric.add_batch(images, ["a cat", longer, "a dog"], value_range="0..1")
    by_hand = (
        (encoder.pictures(images) * encoder.texts(["a cat", longer, "a dog"])).sum(1).clamp(min=0).mean()
    )
    assert metric.compute().value == pytest.approx(float(by_hand), rel=1e-9)
    with pytest.raises(FileNotFoundError, match="give the path of the weights of ViT-B-32"):
        open_clip_encoder("ViT-B-32", tmp_path / "none.pt")
    with pytest.raises(ValueError, match="unknown architecture 'ViT-B-33'"):
        open_clip_encoder("ViT-B-33", tmp_path / "weights.pt")


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A CLIP of transformers with a vocabulary of letters, context 12."""
    transformers = pytest.importorskip("transformers")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    text = {
        "vocab_size": len(vocab),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "bos_token_id": 52,
        "eos_token_id": 53,
        "pad_token_id": 53,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_model_of_transformers_keeps_the_end_token_of_long_captions(clip_folder: Path):
    from transformers import CLIPModel

    encoder = transformers_clip_encoder(clip_folder)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    model = CLIPModel.from_pretrained(clip_folder).eval()
    ids = torch.tensor([[52, 28, 31, 53, 53], [52, *(26 + i for i in range(3)), 53]])
    attended = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=attended, pixel_values=(images - mean) / std)
    assert torch.allclose(encoder.pictures(images).float(), output.image_embeds, atol=FLOAT32)
    assert torch.allclose(encoder.texts(["c f", "a b c"]).float(), output.text_embeds, atol=FLOAT32)
    full, longer = " ".join("abcdefghij"), " ".join("abcdefghijklmnop")
    assert torch.allclose(encoder.texts([full]), encoder.texts([longer]), atol=FLOAT32)
    assert not torch.allclose(encoder.texts(["a b"]), encoder.texts(["a c"]), atol=1e-3)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        transformers_clip_encoder(clip_folder / "none")


@pytest.mark.peer
def test_the_convention_torchmetrics_is_torchmetrics(clip_folder: Path):
    multimodal = pytest.importorskip("torchmetrics.multimodal")
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPProcessor

    class Unwrapped(CLIPModel):
        # torchmetrics 1.9 expects the tensors that transformers 4 returned
        def get_image_features(self, *args):
            return super().get_image_features(*args).pooler_output

        def get_text_features(self, *args):
            return super().get_text_features(*args).pooler_output

    def model_and_processor():
        square = {"height": 16, "width": 16}
        images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square)
        return Unwrapped.from_pretrained(clip_folder), CLIPProcessor(
            images, AutoTokenizer.from_pretrained(clip_folder)
        )

    images = torch.randint(
        0, 256, (4, 3, 24, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    captions = ["a b", "c", "d e f", "g"]
    peer = multimodal.CLIPScore(model_name_or_path=model_and_processor)
    peer.update(images, captions)
    ours = ClipScore(transformers_clip_encoder(clip_folder), "torchmetrics")
    ours.add_batch(images, captions)
    # the processor's resize may put a byte on the other side
    assert ours.compute().value == pytest.approx(float(peer.compute()), abs=0.05)


def test_every_convention_has_its_own_words():
    assert len({str(c) for c in CONVENTIONS.values()}) == len(CONVENTIONS) == 4
