"""Shards on disk: what goes in comes out, a shard is complete or not there, and damage is named."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.data.captioned import DataError, split_by_hash, unit_hash
from cf_apps.data.shards.content import Content, Features, Ragged, token_mask
from cf_apps.data.shards.reading import damaged, open_shard, open_shards
from cf_apps.data.shards.records import MANIFEST, Plan, ShardRecord, begin, block_name, shards_folder
from cf_apps.data.shards.writing import Part, ShardWriter, held_out_below
from cf_apps.engine import files as files_module
from cf_apps.engine.errors import ConfigError, RunError
from cf_encoders import CachedLanguageModel, TextFeatures

PLAN = Plan(
    source="somewhere", contents="c", units=1, shard_size=3, image_size=8, latent=(2, 3, 3),
    language={"name": "clip"}, codec={"name": "pixels"}, width=5, max_tokens=4, flip=True,
    pictures=False, held_out=0.05,
)  # fmt: skip


def features(counts: list[int], n: int = 4, width: int = 5, seed: int = 0) -> TextFeatures:
    tokens = torch.randn(len(counts), n, width, generator=torch.Generator().manual_seed(seed))
    return TextFeatures(tokens, torch.arange(n) < torch.tensor(counts)[:, None])


def content(n: int = 3, seed: int = 0, draws: list[float] | None = None) -> Content:
    """n samples with 1, 2, 3, ... phrasings"""
    dice = torch.Generator().manual_seed(seed)
    counts = [i % 3 + 1 for i in range(n)]
    texts = [f"caption {seed} {i} {k} ä猫".encode() for i, count in enumerate(counts) for k in range(count)]
    lengths = [(5 * k + seed) % 4 + 1 for k in range(len(texts))]
    return Content(
        names=Ragged.of_bytes([f"{seed}-{i}.png".encode() for i in range(n)]),
        draws=torch.tensor(draws or [0.1 + 0.01 * seed + 0.8 * i / n for i in range(n)], dtype=torch.float64),
        captions=Ragged.of_bytes(texts),
        caption_ends=torch.tensor(counts).cumsum(0),
        latents=torch.randn(n, 2, 3, 3, generator=dice).half(),
        flipped=torch.randn(n, 2, 3, 3, generator=dice).half(),
        features=Features.packed(features(lengths, seed=seed), "left out"),
    )


def written(folder: Path, draws: list[list[float] | None] = [None, None]) -> ShardWriter:  # noqa: B006
    """a finished set of one unit, a shard of three samples for each list of draws"""
    writer = ShardWriter(folder, begin(folder, PLAN))
    for block, some in enumerate(draws):
        writer.write_shard(0, block, content(3, block, some), [(f"bad {block}", "why")])
    writer.end_unit(0, len(draws))
    assert writer.finish() is not None
    return writer


# ------------------------------------------------------------------------------------------------- content


def test_rows_of_different_lengths_come_back_and_can_be_joined():
    rows = [b"abc", b"", b"d", "ä猫".encode()]
    one, two = Ragged.of_bytes(rows[:2]), Ragged.of_bytes(rows[2:])
    for ragged in (Ragged.of_bytes(rows), Ragged.joined([one, two])):
        assert [ragged.row_bytes(i) for i in range(4)] == rows
    assert Ragged.of_bytes([b"", b""]).row_bytes(1) == b""


class Fake:
    """a language model of a few numbers, to compare with how cf_encoders keeps features"""

    width, max_tokens, fingerprint = 5, 4, "f"

    def __init__(self, found: TextFeatures) -> None:
        self.found = found

    def __call__(self, captions) -> TextFeatures:
        return self.found

    def too_long(self, captions) -> list[int]:
        return []


@pytest.mark.parametrize("padding", ["left out", "kept"])
def test_features_come_back_as_a_cached_language_model_gives_them(padding):
    counts = [4, 1, 3]
    given = features(counts)
    expected = CachedLanguageModel(Fake(given), padding=padding)(["a", "b", "c"])
    packed = Features.joined([Features.packed(TextFeatures(given.tokens[i : i + 1], given.mask[i : i + 1]), padding)
                              for i in range(3)])  # fmt: skip
    tokens, lengths = packed.unpacked([2, 0, 1], 4)
    assert torch.equal(tokens.float(), expected.tokens[[2, 0, 1]])
    assert torch.equal(token_mask(lengths, 4), expected.mask[[2, 0, 1]])


def test_features_beyond_half_precision_are_refused():
    given = features([2])
    with pytest.raises(DataError, match=r"token features reach 1e\+05, beyond half precision"):
        Features.packed(
            TextFeatures(given.tokens.clamp(max=0) + 1e5 * given.mask[..., None], given.mask), "left out"
        )


def test_a_sample_of_the_paper_takes_less_than_0_14_mb():
    """77 x 768 features of a caption that fills CLIP's context, a 4 x 32 x 32 latent and its mirror image, in fp16"""
    n = 3
    full = TextFeatures(torch.ones(n, 77, 768), torch.ones(n, 77, dtype=torch.bool))
    latents = torch.zeros(n, 4, 32, 32).half()
    caption = b"a caption of 77 tokens " * 15
    one = Content(
        Ragged.of_bytes([b"folder/of/pictures/000000000001.jpg"] * n), torch.rand(n).double(),
        Ragged.of_bytes([caption] * n), torch.arange(1, n + 1), latents, latents, Features.packed(full, "kept"),
    )  # fmt: skip
    a_sample = sum(tensor.numel() * tensor.element_size() for tensor in one.tensors().values()) / n
    assert 77 * 768 * 2 + 2 * 4 * 32 * 32 * 2 == 134_656
    assert 134_656 <= a_sample <= 140_000


# ------------------------------------------------------------------------------------------------- a finished set


def test_what_is_written_is_read(tmp_path):
    written(tmp_path / "set")
    shards = open_shards(tmp_path / "set")
    assert (len(shards), shards.counts, shards.manifest.skipped) == (
        5,
        (2, 3),
        2,
    )  # the lowest draw is held out
    seen: dict[str, list[int]] = {}
    for number, name in enumerate(shards.names(0, 15, seed=1)):
        seen.setdefault(name, []).append(number)
    assert {len(places) for places in seen.values()} == {3}  # three epochs
    for name, places in seen.items():
        block, row = (int(part) for part in name.removesuffix(".png").split("-"))
        one = content(3, block)
        for place in places:
            batch = shards.stream(place, 1, seed=1)
            k = [one.text(k) for k in range(len(one.captions.ends))].index(batch.captions[0])
            assert one.caption(row, 0.0) <= k < int(one.caption_ends[row])
            either = [one.latents[row].float(), one.flipped[row].float()]
            assert any(torch.equal(batch.latents[0], latent) for latent in either)
            tokens, lengths = one.features.unpacked([k], 4)
            assert torch.equal(batch.text.tokens, tokens)
            assert torch.equal(batch.text.mask, token_mask(lengths, 4))


def test_a_batch_is_the_same_however_it_is_cut(tmp_path):
    written(tmp_path / "set")
    shards = open_shards(tmp_path / "set")
    whole, parts = shards.stream(3, 8, seed=2), [shards.stream(3, 5, seed=2), shards.stream(8, 3, seed=2)]
    assert whole.captions == [text for part in parts for text in part.captions]
    assert torch.equal(whole.latents, torch.cat([part.latents for part in parts]))
    assert torch.equal(whole.text.tokens, torch.cat([part.text.tokens for part in parts]))


def test_phrasings_and_mirror_images_are_drawn_evenly(tmp_path):
    written(tmp_path / "set")
    shards = open_shards(tmp_path / "set")
    names, batch = shards.names(0, 600, seed=0), shards.stream(0, 600, seed=0)
    drawn = [text for name, text in zip(names, batch.captions, strict=True) if name == "1-2.png"]
    assert {text.split()[3] for text in drawn} == {"0", "1", "2"}
    assert all(drawn.count(text) / len(drawn) == pytest.approx(1 / 3, abs=0.15) for text in set(drawn))
    upright = content(3, 1).latents[2].float()
    latents = [latent for name, latent in zip(names, batch.latents, strict=True) if name == "1-2.png"]
    assert sum(torch.equal(one, upright) for one in latents) / len(latents) == pytest.approx(0.5, abs=0.15)


def test_both_sides_together_are_everything_and_share_nothing(tmp_path):
    written(tmp_path / "set", [[0.3, 0.01, 0.7], [0.04, 0.9, 0.05]])
    train = open_shards(tmp_path / "set")
    val = replace(train, side="val")
    assert set(train.names(0, len(train), 0)) == {"0-0.png", "0-2.png", "1-1.png", "1-2.png"}
    assert set(val.names(0, len(val), 0)) == {"0-1.png", "1-0.png"}
    assert len(train.captions(99)) == 1 + 3 + 2 + 3
    assert train.captions(1) == [content(3, 0).text(0)]


def test_the_held_out_side_is_that_of_split_by_hash():
    dice = random.Random(0)
    for size in (1, 2, 3, 7, 200):
        for share in (0.0, 0.05, 0.4, 0.99):
            keys = [str(dice.randrange(10**6)) for _ in range(size)]
            keys += keys[: dice.randrange(3)]  # copies
            draws = [unit_hash(key) for key in keys]
            records = [ShardRecord("a", 1, 1, lowest=draw, highest=draw) for draw in draws]
            below = held_out_below(share, records)
            _, val = split_by_hash(keys, share)
            assert [i for i, draw in enumerate(draws) if draw < below] == val.tolist()


# ------------------------------------------------------------------------------------------------- whole or not there


def test_a_shard_without_its_record_is_not_there(tmp_path):
    writer = ShardWriter(tmp_path / "set", begin(tmp_path / "set", PLAN))
    writer.write_shard(0, 0, content(), [])
    assert writer.done(0, 0)
    (shards_folder(writer.folder) / f"{block_name(0, 0)}.json").unlink()  # as a kill in between leaves it
    assert not writer.done(0, 0)
    writer.end_unit(0, 1)
    assert writer.missing() == ([block_name(0, 0)], [])
    assert writer.finish() is None
    with pytest.raises(DataError, match="is not finished"):
        open_shards(writer.folder)


def test_a_write_that_fails_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path / "set", begin(tmp_path / "set", PLAN))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cf_apps.data.shards.writing.save_file", full)
    with pytest.raises(RunError, match=r"No space left on device; make room and run the same command again"):
        writer.write_shard(0, 0, content(), [])
    assert not writer.done(0, 0)
    assert list(shards_folder(writer.folder).iterdir()) == []


def test_leftovers_of_killed_processes_go_when_the_set_is_finished(tmp_path):
    writer = ShardWriter(tmp_path / "set", begin(tmp_path / "set", PLAN))
    shard = shards_folder(writer.folder) / ".000000-000000.safetensors.99.tmp"
    leftovers = [shard, *(writer.folder / f".{name}.json.99.tmp" for name in ("plan", "manifest"))]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    writer.write_shard(0, 0, content(), [])
    writer.end_unit(0, 1)
    assert writer.finish() is not None
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_process_that_finishes_the_set_may_clear_away_what_another_is_writing_alike(tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path / "set", begin(tmp_path / "set", PLAN))
    writer.write_shard(0, 0, content(), [])
    writer.end_unit(0, 1)
    sync = files_module.sync

    def cleared(path):
        sync(path)
        if path.suffix == ".tmp":
            path.unlink()  # between the writing and the renaming

    monkeypatch.setattr(files_module, "sync", cleared)
    writer.end_unit(0, 1)
    assert writer.ended(0) == 1
    with pytest.raises(FileNotFoundError):  # nobody else has written this one
        writer.end_unit(1, 1)


def test_another_plan_is_refused_and_named(tmp_path):
    begin(tmp_path / "set", PLAN)
    assert begin(tmp_path / "set", replace(PLAN, made_with={"commit": "later"})) == PLAN
    with pytest.raises(ConfigError, match=r"was begun otherwise \(shard_size was 3, is 9 now\)"):
        begin(tmp_path / "set", replace(PLAN, shard_size=9))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with pytest.raises(ConfigError, match="is not empty and holds no shards"):
        begin(tmp_path / "full", PLAN)


def test_blocks_that_nobody_could_use_have_a_record_and_no_file(tmp_path):
    writer = ShardWriter(tmp_path / "set", begin(tmp_path / "set", PLAN))
    writer.write_shard(0, 0, None, [("a.png", "not an image"), ("b.png", "no caption")])
    writer.end_unit(0, 1)
    with pytest.raises(
        DataError, match=r"no usable captioned image; 2 skipped, the first a.png: not an image"
    ):
        writer.finish()
    writer.write_shard(0, 1, content(), [])
    writer.end_unit(0, 2)
    assert writer.finish().samples == 3
    assert writer.list_skipped() == 2
    rows = [json.loads(line) for line in (writer.folder / "skipped.jsonl").read_text().splitlines()]
    assert rows == [{"name": "a.png", "reason": "not an image"}, {"name": "b.png", "reason": "no caption"}]
    assert len(open_shards(writer.folder)) == 2


# ------------------------------------------------------------------------------------------------- damage


def test_a_file_that_is_missing_or_cut_is_named_before_training(tmp_path):
    writer = written(tmp_path / "set")
    path = shards_folder(writer.folder) / f"{block_name(0, 1)}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(
        DataError, match=rf"000000-000001.safetensors has {len(whole) - 7} bytes, it was written with"
    ):
        open_shards(writer.folder)
    path.unlink()
    with pytest.raises(
        DataError, match=r"000001.safetensors is missing; run the same .* again with --verify"
    ):
        open_shards(writer.folder)


def test_a_byte_that_changed_is_found_by_reading_everything(tmp_path):
    writer = written(tmp_path / "set")
    record = next(writer.records())
    assert damaged(writer.folder, record.name, record.sha256) is None
    path = shards_folder(writer.folder) / f"{record.name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "SHA-256 is" in damaged(writer.folder, record.name, record.sha256)


def test_a_broken_header_is_named_by_the_batch_that_needs_it(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match=r"x.safetensors is damaged .*--verify"):
        open_shard(path, "")


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"plan": 3}'])
def test_a_broken_manifest_is_one_clear_line(tmp_path, garbage):
    writer = written(tmp_path / "set")
    (writer.folder / MANIFEST).write_text(garbage)
    with pytest.raises(DataError, match=r"manifest.json") as caught:
        open_shards(writer.folder)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("units", [1, 2, 3, 7])
def test_each_block_is_made_by_one_process(units, count):
    parts = [Part(index, count) for index in range(count)]
    for unit in range(units):
        for block in range(9):
            takers = [p for p in parts if p.takes_unit(unit, units) and p.takes_block(unit, units, block)]
            assert len(takers) == 1


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/2", "a/b", "1/0", "1/2/3"])
def test_a_part_that_does_not_exist_is_refused(text):
    with pytest.raises(ConfigError, match="part"):
        Part.parse(text)


def test_a_part_is_read():
    assert Part.parse("2/3") == Part(2, 3)
