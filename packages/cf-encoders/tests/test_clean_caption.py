"""The right-hand sides were made by diffusers 0.42 (PixArtAlphaPipeline._clean_caption) with beautifulsoup4 4.15."""

import random

import pytest
from cf_encoders import located
from cf_encoders.language_models.clean_caption import clean_caption, text_of

CASES = [
    ("A Dog, left of 2 cats!", "a dog, left of 2 cats!"),
    ("  Two\tdogs\n run.  ", "two dogs run."),
    ("a <person> on a horse", "a person on a horse"),
    ("see https://example.com/x.html for more", "see . html for more"),
    ("a chair from shop.example.com/chairs-1 today", "a chair from today"),
    ("www:dogs a dog", "ogs a dog"),
    ("photo by @nick_name of a cat", "photo by of a cat"),
    ("红色 a red 犬 circle", "a red circle"),
    ("an in—between – day", "an in-between - day"),
    ("“quoted” ‘text’ «here»", "quoted\" 'text' \"here"),
    ("black &quot;and&quot; white", 'black "and" white'),
    ("salt &amp; pepper", "salt pepper"),
    ("a at 192.168.0.1 b", "a at b"),
    ("news 1:23 ", "news 1:23"),
    ("first\\nsecond", "first second"),
    ("#12 #1234 #12345 runs", "1234 runs"),
    ("order 1234567 boots", "order boots"),
    ("holiday.png of a beach.jpg", "of a"),
    ("'''so''' \"\"\"what\"\"\"", 'so" "what'),
    ("wait... what", "wait what"),
    ("***SALE*** (now) [here] {x} a|b a\\b c/d", "sale now here x a b a b c d"),
    ("a . b", "a b"),
    ("this-is-my-cute-cat", "this is my cute cat"),
    ("two-part word", "two-part word"),
    ("schÃ¶n and itâ€™s", "schã¶n and it†s"),
    ("&amp;eacute; &lt;b&gt;", "eacute; <b>"),
    ("jc6640 and jc6640vc and 6640vc231", "and and"),
    ("worldwide free shipping on boots", "on boots"),
    ("free download now", "now"),
    ("click for more", ""),
    ("png images of jpg image", "of"),
    ("page 12 of it", "of it"),
    ("j2d1a2a chair", "chair"),
    ("30x40 cm 3.5×2", "cm"),
    ("dog : cat", "dog: cat"),
    ("red,blue/green.yellow", "red, blue green. yellow"),
    ('"all of it"', "all of it"),
    ("'start and end-", "start and end"),
    ("_under:", "under"),
    ("end+", "end"),
    (".hidden", ""),
    ("100%25 wool+silk", "100% wool silk"),
    ("", ""),
    ("7.5 stars", "7.5 stars"),
    ("&lt;3 you", "<3 you"),
    ("a.b.c. d", "a. b. c. d"),
]

# what rules look for, to be put together at random
PIECES = [
    "A dog",
    "<person>",
    "https://a.b/c",
    "www:x",
    "shop.example.com/pic",
    "@nick",
    "漢字",
    "㐀",
    "—",
    "–",
    "“hi”",
    "‘x’",
    "&quot;",
    "&amp;",
    "&amp",
    "&lt;b&gt;",
    "<b>bold</b>",
    "<br>",
    "<br/>",
    "<!-- c -->",
    "<script>x</script>",
    "<style>y",
    "</style>",
    "192.168.0.1",
    "1:23 ",
    "\\n",
    "#12",
    "#1234",
    "#12345",
    "123456",
    "cat.png",
    "photo.jpg",
    "'''",
    '""',
    "...",
    "***",
    "(x)",
    "[y]",
    "a\\b",
    "a/b",
    "this-is-my-cute-cat",
    "a_b",
    "jc6640",
    "jc6640vc",
    "6640vc231",
    "free shipping",
    "worldwide free shipping",
    "free download",
    "click on this",
    "png images",
    "page 12",
    "j2d1a2a",
    "30x40",
    "3.5×2",
    " : ",
    ",foo",
    ".",
    "a.b",
    "\n",
    "\t",
    "%20",
    "+",
    "'",
    '"',
    ":",
    "-",
    "_",
    "Ã©",
    "â€™",
    "é",
    "&eacute;",
    "&#39;",
    "&#x27;",
    "&unknown;",
    "&copy",
    "R&D",
    "AT&T",
    "a < b",
    "<b",
    "a<3",
    "<!DOCTYPE html>",
    "<![CDATA[z]]>",
    "<a href=x>l</a>",
    "<template>t</template>",
    "5 ½",
    "x;",
    "&;",
    "&#;",
    "&#xZ;",
    "<?php x ?>",
    "ŝ",
    "</p>",
    "user@mail.com",
    "I.T.",
    "net.org@x",
]


@pytest.mark.parametrize(("caption", "cleaned"), CASES)
def test_captions_are_cleaned_as_diffusers_cleans_them(caption, cleaned):
    assert clean_caption(caption) == cleaned


def test_a_second_cleaning_can_change_a_caption_once_more():
    once = clean_caption("&amp;eacute; &lt;b&gt;")
    assert once != clean_caption(once)


@pytest.mark.peer
def test_any_caption_is_cleaned_as_diffusers_cleans_it():
    pytest.importorskip("bs4", reason="diffusers' cleaner needs it: pip install beautifulsoup4")
    pixart = pytest.importorskip("diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha")
    theirs = object.__new__(pixart.PixArtAlphaPipeline)
    draw = random.Random(0)
    for _ in range(20_000):
        caption = draw.choice(["", " "]).join(draw.choices(PIECES, k=draw.randint(1, 7)))
        assert clean_caption(caption) == theirs._clean_caption(caption), caption


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a <b>bold</b> dog", "a bold dog"),
        ("a < b and 3 > 2", "a < b and 3 > 2"),
        ("x<!-- hidden -->y<script>var a</script><style>p</style>z", "xyz"),
        (
            "Caf&eacute; &amp; bar &#39;n&#x27; grill &unknown; R&D now",
            "Café & bar 'n' grill &unknown R&D now",
        ),
        ("<![CDATA[kept]]>", "kept"),
    ],
)
def test_markup_goes_and_its_text_stays(markup, text):
    assert text_of(markup) == text


def test_a_missing_library_is_named_with_its_install_command(monkeypatch):
    def missing(library):
        raise ImportError(library)

    monkeypatch.setattr(located, "import_module", missing)
    with pytest.raises(ImportError, match=r"ftfy is missing: pip install 'cf-encoders\[transformers\]'"):
        clean_caption("a dog")
