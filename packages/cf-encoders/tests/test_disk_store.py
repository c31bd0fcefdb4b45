"""What is on disk survives kills, cuts, damage and company."""

import multiprocessing
import os

import pytest
import torch
from cf_encoders.language_models.disk_store import DiskStore, Manifest
from cf_encoders.language_models.feature_file import HEADER, ROW
from cf_encoders.language_models.feature_store import StoredFeatures

WIDTH = 3
MANIFEST = Manifest("Toy", "0123456789abcdef" * 4, WIDTH, max_tokens=9)


def features(caption):
    """As many rows as the caption has letters, none for the empty one, all of them its own."""
    draw = torch.Generator().manual_seed(sum(map(ord, caption)))
    return StoredFeatures(torch.randn(len(caption), WIDTH, generator=draw).half(), len(caption))


def write(store, captions):
    store.write(captions, [features(caption) for caption in captions])


def holds(store, captions):
    found = store.read(captions)
    return [
        one is not None and one.length == len(c) and torch.equal(one.rows, features(c).rows)
        for c, one in zip(captions, found, strict=True)
    ]


@pytest.fixture
def store(tmp_path):
    return DiskStore(tmp_path, MANIFEST)


def only_file(store):
    (file,) = store.folder.glob("*.features")
    return file


def test_what_is_written_is_read_in_any_order_by_anybody(store, tmp_path):
    write(store, ["abc", "", "de"])
    write(store, ["f"])
    for reader in (
        store,
        DiskStore(tmp_path, MANIFEST),
        DiskStore.open(tmp_path),
        DiskStore.open(store.folder),
    ):
        assert holds(reader, ["f", "de", "abc", "", "f"]) == [True] * 5
        assert reader.read(["none"]) == [None]
        assert reader.has(["f", "none", ""]) == [True, False, True]
        assert len(reader) == 4


def test_a_cut_anywhere_loses_the_cut_batch_and_no_other(store, tmp_path):
    """As a kill in the middle of a write leaves the file: of the second batch n bytes are there."""
    write(store, ["abc", "de"])
    first = only_file(store).stat().st_size
    write(store, ["fghi", "j"])
    whole = only_file(store).read_bytes()
    for size in range(first, len(whole)):
        only_file(store).write_bytes(whole[:size])
        assert holds(DiskStore(tmp_path, MANIFEST), ["abc", "de", "fghi", "j"]) == [True, True, False, False]
    only_file(store).write_bytes(whole)
    assert holds(DiskStore(tmp_path, MANIFEST), ["abc", "de", "fghi", "j"]) == [True] * 4


def test_a_cut_under_an_open_store_makes_features_missing_and_they_can_be_written_again(store):
    write(store, ["abc", "de"])
    size = only_file(store).stat().st_size
    with only_file(store).open("r+b") as file:
        file.truncate(size - 1)
    assert holds(store, ["abc", "de"]) == [True, False]
    write(store, ["de"])
    assert holds(store, ["abc", "de"]) == [True, True]
    only_file(store).unlink()
    assert holds(store, ["abc", "de"]) == [False, False]


def test_a_write_that_failed_half_way_is_written_over(store, tmp_path):
    """A full disk, say: the process lives on, and its next batch must not stand behind rubbish."""
    write(store, ["abc"])
    with only_file(store).open("ab") as file:
        file.write(b"half a batch, longer than the next one is going to be" * 3)
    write(store, ["de"])
    assert holds(DiskStore(tmp_path, MANIFEST), ["abc", "de"]) == [True, True]


def test_damage_is_seen_and_reaches_no_other_caption(store, tmp_path):
    write(store, ["abc", "de", "f"])
    start = HEADER.size + 3 * ROW.itemsize
    damage(only_file(store), start + 3 * WIDTH * 2)  # the first byte of "de"
    reader = DiskStore(tmp_path, MANIFEST)
    assert holds(reader, ["abc", "de", "f"]) == [True, False, True]
    assert reader.read(["de"]) == [None]  # missing, and not something else
    write(reader, ["de"])
    assert holds(reader, ["abc", "de", "f"]) == [True, True, True]


@pytest.mark.parametrize("byte", [0, 8, 12, 20, HEADER.size, HEADER.size + ROW.itemsize - 1])
def test_a_damaged_header_or_table_hides_its_batch(store, tmp_path, byte):
    write(store, ["abc", "de"])
    damage(only_file(store), byte)
    assert holds(DiskStore(tmp_path, MANIFEST), ["abc", "de"]) == [False, False]


def damage(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x55
    path.write_bytes(data)


def test_processes_write_to_one_folder_at_once_and_see_each_others_features(store, tmp_path):
    """Forked, as the workers of a DataLoader are: both begin with the parent's store, which has written before."""
    write(store, ["parent"])
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=write_many, args=(store, name)) for name in "xyz"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    captions = ["parent", *(name * i for name in "xyz" for i in range(1, 60))]
    assert all(holds(store, captions))
    assert all(holds(DiskStore(tmp_path, MANIFEST), captions))
    assert len(list(store.folder.glob("*.features"))) == 4


def write_many(store, name):
    for i in range(1, 60):
        write(store, [name * i])
        assert holds(store, [name * i, "parent"]) == [True, True]


def test_a_killed_process_leaves_all_it_had_written(store):
    fork = multiprocessing.get_context("fork")
    worker = fork.Process(target=write_and_die, args=(store,))
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == -9
    assert holds(store, ["abc", "de"]) == [True, False]


def write_and_die(store):
    write(store, ["abc"])
    append = b"half of a batch"
    with store._files[store._own[1]].open("ab", buffering=0) as file:
        file.write(append)
    os.kill(os.getpid(), 9)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": "Toy"}', '{"modell": "Toy"}'])
def test_a_manifest_that_is_none_is_named(store, tmp_path, text):
    (store.folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is not the manifest of a feature store"):
        DiskStore(tmp_path, MANIFEST)


def test_features_are_read_when_they_are_asked_for(store, tmp_path):
    """A store that is opened holds places and no features: it is far smaller than its file."""
    many = [str(i) for i in range(500)]
    store.write(many, [StoredFeatures(torch.zeros(9, WIDTH).half(), 9)] * len(many))
    reader = DiskStore(tmp_path, MANIFEST)
    ((keys, places),) = reader._index._blocks
    assert keys.nbytes + places.nbytes == 36 * len(reader) == 36 * 500
