"""score_captions and CaptionMetrics: the way pycocoevalcap goes, streams, ranks and bad input."""

import gzip
import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch.distributed as dist
from cf_eval import Result
from cf_eval.captions.caption_metrics import CaptionMetrics, one_sample, score_captions
from cf_eval.captions.coco_files import read_candidates, read_references
from cf_eval.captions.document_frequency import DocumentFrequencies
from cf_eval.captions.protocol import CaptionProtocol
from cf_eval.captions.ptb_tokenizer import tokenize

CANDIDATES = {
    7: "A man's riding a wave, on top of a surfboard.",
    3: "Two dogs (brown) run!",
    11: "A bus at 12:30 on Main St. and 2nd Ave.",
    5: "It isn't a cat.",
    2: "a plate of food",
}
REFERENCES = {
    3: ["Two brown dogs are running.", "Dogs run"],
    7: ["A surfer on a wave.", "A man rides a wave", "a man on a surfboard on top of a wave"],
    11: ["The bus is on Main St.", "A red bus at half past twelve"],
    5: ["It isn't a cat.", "It is not a cat", "It isn't a cat."],
    2: ["A plate with some food on it"],
}
NAMES = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider_d", "rouge_l"]
# Sums in another order.
ROUNDING = 1e-12


def test_scores_are_those_of_pycocoevalcap_with_its_own_tokenizer():
    pytest.importorskip("pycocoevalcap", reason="NO PYCOCOEVALCAP: scores were not compared")
    if shutil.which("java") is None:
        pytest.skip("NO JAVA: scores were not compared with pycocoevalcap's whole way")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    gts = PTBTokenizer().tokenize({i: [{"caption": c} for c in REFERENCES[i]] for i in CANDIDATES})
    res = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in CANDIDATES.items()})
    corpus, each = Bleu(4).compute_score(gts, res, verbose=0)
    found = {name: (corpus[n], each[n]) for n, name in enumerate(NAMES[:4])}
    found |= {"cider_d": Cider().compute_score(gts, res), "rouge_l": Rouge().compute_score(gts, res)}
    for tokenizer in ("python", "java"):
        scores = score_captions(CANDIDATES, REFERENCES, CaptionProtocol(tokenizer=tokenizer))
        for name, (value, per_caption) in found.items():
            assert scores[name] == pytest.approx(value, abs=1e-9)
            assert [scores.per_caption[name][i] for i in res] == pytest.approx(list(per_caption), abs=1e-9)


def test_the_result_says_how_it_was_measured():
    scores = score_captions(CANDIDATES, REFERENCES, CaptionProtocol(confidence=0.9, resamples=50, seed=4))
    result = scores.result
    assert result.count == 5
    assert list(result.values) == NAMES
    assert "PTB 3.4.1" in result.protocol
    assert "closest reference length" in result.protocol
    assert "frequencies of the references" in result.protocol
    assert result.details["tokenizer"] == "python"
    assert result.details["references"] == 11
    assert result.details["warnings"] == []
    low, high = result.details["intervals"]["cider_d"]
    assert low <= scores["cider_d"] <= high
    assert Result.from_json(result.to_json()) == result
    with pytest.raises(KeyError, match="no value 'meteor'; known: bleu_1"):
        _ = scores["meteor"]


def test_lists_and_ids_give_the_same_scores():
    by_id = score_captions(CANDIDATES, REFERENCES)
    ids = list(CANDIDATES)
    by_order = score_captions([CANDIDATES[i] for i in ids], [REFERENCES[i] for i in ids])
    one_each = score_captions({i: [c] for i, c in CANDIDATES.items()}, REFERENCES)
    for name in NAMES:
        assert by_order[name] == pytest.approx(by_id[name], abs=ROUNDING)
        assert one_each[name] == by_id[name]
        for place, i in enumerate(ids):
            assert by_order.per_caption[name][place] == pytest.approx(
                by_id.per_caption[name][i], abs=ROUNDING
            )


def test_tokens_as_given_are_split_at_blanks_only():
    rows = {i: " ".join(tokenize(c)) for i, c in CANDIDATES.items()}
    tokens = {i: [" ".join(tokenize(c)) for c in refs] for i, refs in REFERENCES.items()}
    given = score_captions(rows, tokens, CaptionProtocol(tokenizer="none"))
    assert given.result.values == score_captions(CANDIDATES, REFERENCES).result.values
    assert "as given" in given.result.protocol


def add(metrics: CaptionMetrics, ids) -> CaptionMetrics:
    metrics.add_batch([CANDIDATES[i] for i in ids], [REFERENCES[i] for i in ids], ids)
    return metrics


def assert_same(scores, whole) -> None:
    assert scores.result.count == whole.result.count
    for name in NAMES:
        assert scores[name] == pytest.approx(whole[name], abs=ROUNDING)
        assert scores.per_caption[name] == pytest.approx(whole.per_caption[name], abs=ROUNDING)


@pytest.mark.parametrize("parts", [[[7, 3, 11, 5, 2]], [[2, 5, 3], [11, 7]], [[5], [], [2, 3, 7, 11]]])
def test_one_two_or_three_uneven_parts_one_empty_give_the_same_scores(parts):
    protocol = CaptionProtocol(confidence=0.95, resamples=20)
    whole = score_captions(CANDIDATES, REFERENCES, protocol)
    first, *others = [add(CaptionMetrics(protocol), ids) for ids in parts]
    merged = first.merge(*others)
    assert_same(merged.compute(), whole)
    assert merged.compute().result.details["intervals"] == whole.result.details["intervals"]


def test_a_stream_of_batches_is_the_whole():
    metrics = CaptionMetrics()
    for i in CANDIDATES:
        add(metrics, [i])
    assert_same(metrics.compute(), score_captions(CANDIDATES, REFERENCES))


def test_a_padding_samplers_duplicates_count_once_and_others_are_refused():
    metrics = add(add(CaptionMetrics(), [7, 3, 11, 5]), [2, 7, 3])
    scores = metrics.merge(add(CaptionMetrics(), [5])).compute()
    assert_same(scores, score_captions(CANDIDATES, REFERENCES))
    assert scores.result.details["duplicates_dropped"] == 3
    with pytest.raises(ValueError, match="image 7 came before with other captions"):
        metrics.add_batch(["another"], [["a"]], [7])
    with pytest.raises(ValueError, match="some images have ids and some have none"):
        metrics.add_batch(["another"], [["a"]])
    assert_same(metrics.compute(), score_captions(CANDIDATES, REFERENCES))


def test_three_gloo_processes_one_of_them_empty_give_the_scores_of_one(tmp_path):
    fork = multiprocessing.get_context("fork")  # what is imported need not be imported again
    ranks = [fork.Process(target=one_rank, args=(tmp_path, rank)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=120)
        rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    whole = score_captions(CANDIDATES, REFERENCES)
    for rank in range(3):
        result = Result.from_json((tmp_path / f"{rank}.json").read_text())
        assert result.count == 5
        assert result.details["duplicates_dropped"] == 1
        assert result.values == pytest.approx(whole.result.values, abs=ROUNDING)


def one_rank(folder: Path, rank: int) -> None:
    """Adds its images, the last of rank 2 as a padding sampler would, and leaves the scores of all."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=3)
    metrics = add(CaptionMetrics(), [[11, 2], [], [5, 3, 7, 2]][rank])
    (folder / f"{rank}.json").write_text(metrics.gathered().compute().result.to_json())
    dist.destroy_process_group()


def test_without_processes_gathering_is_a_copy():
    metrics = add(CaptionMetrics(), [7, 3])
    copy = metrics.gathered()
    add(copy, [5])
    assert len(metrics.by_id) == 2
    assert len(copy.by_id) == 3


def test_one_image_has_a_cider_of_zero_and_the_result_says_so():
    with pytest.warns(UserWarning, match="CIDEr-D of one image is 0"):
        scores = score_captions(["a cat sits here"], [["a cat sits here"]])
    assert scores["cider_d"] == 0.0
    assert scores["rouge_l"] == 1.0
    assert "CIDEr-D of one image is 0" in scores.result.details["warnings"][0]
    frequencies = DocumentFrequencies(10, {"a": 9, "cat": 1})
    scores = score_captions(
        ["a cat sits here"], [["a cat sits here"]], CaptionProtocol(frequencies=frequencies)
    )
    assert scores["cider_d"] == pytest.approx(10.0)
    assert "10 other images" in scores.result.protocol


def test_captions_without_tokens_are_scored_and_told():
    with pytest.warns(UserWarning, match="no tokens"):
        scores = score_captions(["...", "a cat"], [["a cat", "a dog"], ["a cat", "😀"]])
    assert scores.per_caption["bleu_4"][0] == 0.0
    assert scores.per_caption["rouge_l"][0] == 0.0
    assert scores.result.details["warnings"] == [
        "1 of 2 candidates have no tokens",
        "1 of 4 references have no tokens",
    ]


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\u2028", "\n"])
def test_a_line_end_inside_a_caption_moves_no_other_caption(end):
    plain = score_captions(["a red bus", "two dogs run"], [["a red bus"], ["two dogs run fast"]])
    odd = score_captions([f"a red{end}bus", "two dogs run"], [["a red bus"], [f"two dogs{end}run fast"]])
    assert odd.result.values == plain.result.values


def test_ids_that_one_side_lacks_are_named():
    with pytest.raises(ValueError, match=r"2 images have no references: 4, 'x'; give"):
        score_captions({1: "a", 4: "b", "x": "c"}, {1: ["a"]})
    with pytest.raises(ValueError, match=r"7 images have no candidate: 2, 3, 4, 5, 6, \.\.\.; give"):
        score_captions({1: "a"}, {i: ["a"] for i in range(1, 9)})


def test_what_cannot_be_scored_is_refused_by_image():
    with pytest.raises(ValueError, match="no captions were added"):
        score_captions({}, {})
    with pytest.raises(ValueError, match="no captions were added"):
        CaptionMetrics().compute()
    with pytest.raises(ValueError, match="image 'b' has no references"):
        score_captions({"a": "x", "b": "y"}, {"a": ["x"], "b": []})
    with pytest.raises(ValueError, match="image 'a' has 2 candidates"):
        score_captions({"a": ["x", "y"]}, {"a": ["x"]})
    with pytest.raises(ValueError, match="2 candidates, 1 lists of references and 2 ids"):
        score_captions(["a", "b"], [["a"]])
    with pytest.raises(TypeError, match="both by image id"):
        score_captions({"a": "x"}, [["x"]])


@pytest.mark.parametrize(
    ("candidate", "references", "message"),
    [
        (None, ["a"], "candidate of image 'here': None is no caption"),
        ("a", 5, "references of image 'here': 5 is no caption"),
        ("a", ["b", 3], "references of image 'here': a caption must be a string, got int: 3"),
        ([b"a"], ["b"], "candidate of image 'here': a caption must be a string, got bytes"),
    ],
)
def test_what_is_no_text_is_refused_by_image(candidate, references, message):
    with pytest.raises(TypeError, match=message):
        one_sample("here", candidate, references)
    with pytest.raises(TypeError):
        score_captions({"here": candidate}, {"here": references})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"metrics": ("cider",)},
            "unknown caption metric 'cider'; known: bleu, cider_d, rouge_l, meteor, spice",
        ),
        ({"metrics": ()}, "no metrics"),
        ({"tokenizer": "ptb"}, "unknown tokenizer 'ptb'; known: python, java, none"),
        ({"confidence": 95.0}, "between 0 and 1"),
        ({"resamples": 1}, "at least 2"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CaptionProtocol(**wrong)


@pytest.mark.parametrize("needs", [{"tokenizer": "java"}, {"metrics": ("meteor",)}, {"metrics": ("spice",)}])
def test_java_is_looked_for_before_anything_is_added(needs, tmp_path):
    (tmp_path / "any.jar").write_bytes(b"")
    jars = dict.fromkeys(["ptb_jar", "meteor_jar", "spice_jar"], tmp_path / "any.jar")
    with pytest.raises(RuntimeError, match="no Java at"):
        CaptionMetrics(CaptionProtocol(**needs, **jars, java=tmp_path / "nowhere"))


def test_coco_files_are_read_plain_and_zipped(tmp_path):
    rows = [{"image_id": 4, "caption": "b"}, {"image_id": 1, "caption": "a"}, {"image_id": 4, "caption": "c"}]
    plain, zipped = tmp_path / "refs.json", tmp_path / "refs.json.gz"
    plain.write_text(json.dumps({"images": [], "annotations": rows}))
    zipped.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert read_references(plain) == read_references(zipped) == {4: ["b", "c"], 1: ["a"]}
    plain.write_text(json.dumps({"x": ["é", "b"], "y": "one"}))
    assert read_references(plain) == {"x": ["é", "b"], "y": ["one"]}
    plain.write_text(json.dumps(rows[:2]))
    assert read_candidates(plain) == {4: "b", 1: "a"}
    plain.write_text(json.dumps({"x": "a"}))
    assert read_candidates(plain) == {"x": "a"}


def test_files_of_another_layout_are_refused(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps([{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]))
    with pytest.raises(ValueError, match="two captions for image 1"):
        read_candidates(file)
    file.write_text(json.dumps([{"image_id": 1, "caption": "a"}, {"id": 2}]))
    with pytest.raises(ValueError, match=r"entry 1 of .* needs an image_id and a caption"):
        read_candidates(file)
    with pytest.raises(ValueError, match=r"entry 1 of"):
        read_references(file)
    file.write_text(json.dumps("captions"))
    with pytest.raises(ValueError, match="holds str"):
        read_references(file)
