"""Our PTB rules against the Stanford jar: a golden file made by it, and the jar itself where Java is."""

import json
import random
import shutil
import stat
from pathlib import Path

import pytest
from cf_eval.captions.ptb_characters import shadow
from cf_eval.captions.ptb_jar import JarTokenizer
from cf_eval.captions.ptb_tokenizer import forget, one_line, tokenize, treebank_tokens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOLDEN = json.loads((Path(__file__).parent / "data" / "ptb_captions.json").read_text("utf-8"))
# A row of its own between captions: what each caption is followed by, here as in Python.
BETWEEN = "A x"
# Of strings of odd signs, the share that may differ; the module's docstring says which.
ODD = 1e-3

needs_java = pytest.mark.skipif(
    shutil.which("java") is None, reason="NO JAVA: the real tokenizer jar was not run"
)


@pytest.fixture(scope="module")
def jar() -> JarTokenizer:
    pytest.importorskip("pycocoevalcap", reason="NO PYCOCOEVALCAP: the real tokenizer jar was not run")
    return JarTokenizer()


def by_jar(jar: JarTokenizer, captions: list[str]) -> list[list[str]]:
    return jar([row for caption in captions for row in (caption, BETWEEN)])[::2]


@pytest.mark.parametrize("kind", ["made", "real"])
def test_every_golden_caption_has_the_tokens_of_the_jar(kind):
    rows = GOLDEN[kind]
    assert len(rows) > 70
    ours = [" ".join(tokenize(caption)) for caption, _ in rows]
    different = [(*row, own) for row, own in zip(rows, ours, strict=True) if own != row[1]]
    assert not different


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("I don't, you can't; it's gonna rain.", "i do n't you ca n't it 's gon na rain"),
        ("'Tis a can opener you cannot use, lemme see", "'t is a can opener you can not use lem me see"),
        ("A close-up at 11:44 of 1,000 tub/showers", "a close-up at 11:44 of 1,000 tub/showers"),
        (
            "see www.foo.com/bar, mail me@foo.org #tag @user r&b",
            "see www.foo.com/bar mail me@foo.org #tag @user r & b",
        ),
        ("elephant/ and/or $5, 50% off", "elephant / and/or $ 5 50 % off"),
        ("Mr. Smith at 5 p.m. in the U.S.", "mr. smith at 5 p.m. in the u.s."),
        ("toilet,wash ground.A wings.l", "toilet wash ground.a wings.l"),
        ("wait… wait . . . wait -- a–b", "wait wait wait a b"),
        ("“a” ‘b’ it’s", "a b it 's"),
        ("£5 €5 ¥5 5¢", "# 5 $ 5 ¥ 5 5 cents"),
        ("½ cup, +5 x=y", "1/2 cup +5 x = y"),
        ("a\xadb 😀 日本 привет colour grey", "ab 日本 привет colour grey"),
        ("(a) [b] {c}!! ?!", "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- !! ?!"),
        ("...", ""),
        ("😀", ""),
        ("", ""),
        ("   ", ""),
    ],
)
def test_a_rule_by_example(caption, tokens):
    assert " ".join(tokenize(caption)) == tokens


def test_a_number_and_a_fraction_are_one_token_with_a_no_break_space():
    assert tokenize("1 1/2 cups") == ["1\xa01/2", "cups"]


def test_a_single_letter_at_the_end_gives_its_dot_away():
    assert tokenize("on platform C.") == ["on", "platform", "c"]
    assert tokenize("vitamin C. and D.") == ["vitamin", "c.", "and", "d"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_a_line_end_inside_a_caption_is_a_blank(end):
    assert tokenize(f"a red{end}bus") == ["a", "red", "bus"]
    assert end not in one_line(f"a{end}b")


@pytest.mark.parametrize("wrong", [None, 3, b"a cat", ["a cat"]])
def test_what_is_no_string_is_refused(wrong):
    with pytest.raises(TypeError, match="must be a string"):
        one_line(wrong)


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_any_text_has_tokens_without_plain_blanks_and_a_shadow_of_its_length(text):
    assert len(shadow(text)) == len(text)
    assert all(token and not {" ", "\n"} & {*token} for token in tokenize(text))


@given(
    st.lists(
        st.sampled_from(["a", "man's", "T-shirt", "no.", "isn't", "U.S.", '"stop"', ",", "5", "1/2"]),
        max_size=9,
    )
)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_the_short_way_for_plain_words_gives_the_tokens_of_the_rules(words):
    dropped = {"''", "'", "``", "`", ".", ",", "..."}
    caption = " ".join(words)
    by_rules = [token for token in treebank_tokens(caption) if token not in dropped]
    assert tokenize(caption) == by_rules
    forget()
    assert tokenize(caption) == by_rules


# put between blanks by hand: a caption takes any of them, glued together or not
FRAGMENTS = """
a the A man dog's it's don't isn't U.S. p.m. Mr. St. no. No. 5 10 1,000 2.5 3/4 1/2 555 1234 12:30 $5 5% ½ é café
日本 😀 ★ © ’ “ ” " ' ` - -- – — / . .. ... , ; : ! ? !! ( ) [ ] { } < > <b> & &amp; # #tag @user + = * ~ ^ _ | £ €
¥ www.a.com x@y.z 't 's n't 'll 'em 'n 'tis Inc. A. B. e.g. AT&T r&b a-b -b b- +5 '90s 1990's 5' w/ and/or :) ;)
cannot gonna o'clock d' y'all ² 10° co-op T-shirt ,b .b
"""


@needs_java
def test_captions_put_together_from_fragments_have_the_tokens_of_the_jar(jar):
    draw, fragments = random.Random(0), FRAGMENTS.split()

    def caption() -> str:
        return "".join(draw.choice(fragments) + " " * draw.randint(0, 1) for _ in range(draw.randint(1, 7)))

    captions = [caption() for _ in range(4000)]
    wrong = [c for c, tokens in zip(captions, by_jar(jar, captions), strict=True) if tokenize(c) != tokens]
    assert len(wrong) <= ODD * len(captions), wrong


LETTERS = "abcdestn'' ..,-\"!?A1 25/()&:;"


@needs_java
@given(st.lists(st.text(LETTERS, min_size=1, max_size=20), min_size=60, max_size=100, unique=True))
@settings(deadline=None, max_examples=2, derandomize=True, suppress_health_check=list(HealthCheck))
def test_strings_made_by_hypothesis_have_the_tokens_of_the_jar(jar, captions):
    assert [tokenize(caption) for caption in captions] == by_jar(jar, captions)


@needs_java
def test_golden_captions_come_from_this_jar(jar):
    captions, tokens = zip(*GOLDEN["made"], *GOLDEN["real"], strict=True)
    assert [" ".join(row) for row in by_jar(jar, list(captions))] == list(tokens)


@needs_java
def test_the_jar_keeps_a_row_for_every_caption_whatever_line_ends_are_in_it(jar):
    captions = ["a\rb", "", "c\u2028d", "\x0b\x0c", "e\x85f\n", "😀", ""]
    assert jar(captions) == [["a", "b"], [], ["c", "d"], [], ["e", "f"], [], []]
    assert jar(["a cat."]) == [["a", "cat"]]
    assert jar([]) == []


def stub_java(path: Path, prints: str) -> Path:
    """A program in Java's place: fine when asked for its version, else it prints this."""
    java = path / "java"
    java.write_text(f'#!/bin/sh\nif [ "$1" = "-version" ]; then exit 0; fi\n{prints}\n')
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    return java


@pytest.fixture
def any_jar(tmp_path) -> Path:
    path = tmp_path / "tokenizer.jar"
    path.write_bytes(b"")
    return path


def test_another_number_of_rows_than_captions_is_an_error(tmp_path, any_jar):
    tokenizer = JarTokenizer(any_jar, stub_java(tmp_path, "printf 'a cat\\na dog'"))
    assert tokenizer(["A cat.", "A dog."]) == [["a", "cat"], ["a", "dog"]]
    with pytest.raises(RuntimeError, match="2 rows for 1 captions"):
        tokenizer(["A cat."])


def test_a_jar_that_fails_is_quoted(tmp_path, any_jar):
    tokenizer = JarTokenizer(any_jar, stub_java(tmp_path, "echo no memory >&2; exit 3"))
    with pytest.raises(RuntimeError, match=r"exit code 3\): no memory"):
        tokenizer(["A cat."])


def test_a_java_that_is_missing_or_does_not_run_is_found_out_at_once(tmp_path, any_jar):
    with pytest.raises(RuntimeError, match=r"no Java at .*pass java="):
        JarTokenizer(any_jar, tmp_path / "nowhere" / "java")
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho wrong architecture >&2; exit 1\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match="wrong architecture"):
        JarTokenizer(any_jar, broken)
    with pytest.raises(FileNotFoundError, match="no Stanford CoreNLP"):
        JarTokenizer(tmp_path / "nowhere.jar")
