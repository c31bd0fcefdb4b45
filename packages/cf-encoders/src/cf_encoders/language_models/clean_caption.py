"""DeepFloyd IF's caption cleaning, which the public T5 pipelines of its time share, CrossFlow's released weights too.

It was made for captions found on the web: shop numbers, links, file names and markup go, everything is lower case.
Written from its behaviour as a list of rules in four stages; its quirks are kept, because weights were trained on
what it gives. A second cleaning can change a caption once more, so that the number of cleanings matters.
"""

import html
import re
from html.entities import html5
from html.parser import HTMLParser
from types import ModuleType
from urllib.parse import unquote_plus

from cf_encoders.located import needs

Rule = tuple[re.Pattern[str], str]

DOMAIN = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
FILE_ENDING = "(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
DASHES = "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"  # noqa: E501
SILENT_TAGS = ("script", "style", "template")  # their content is not text


def rule(pattern: str, replacement: str = "") -> Rule:
    return re.compile(pattern), replacement


BEFORE_MARKUP = (
    rule("<person>", "person"),
    # links, and bare domains; twice, for what the first removal brought together
    rule(rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{DOMAIN})"),
    rule(rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{DOMAIN})"),
)

CHARACTERS = (
    rule(r"@\w+\b"),
    rule("[\u31c0-\u9fff]+"),  # CJK strokes to unified ideographs, eight blocks without a gap
    rule(f"[{DASHES}]+", "-"),
    rule("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    rule("[\u2018\u2019]", "'"),
    rule("&quot;?"),
    rule("&amp"),
    rule(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # IP addresses
    rule(r"\d:\d\d\s+$"),  # article numbers
    rule(r"\\n", " "),  # a line break somebody escaped
    rule(r"#\d{1,3}\b"),
    rule(r"#\d{5,}\b"),
    rule(r"\b\d{6,}\b"),
    rule(rf"\S+\.{FILE_ENDING}"),
    rule("[\"']{2,}", '"'),
    rule(r"\.{2,}", " "),
    rule(r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    rule(r"\s+\.\s+", " "),
)

WORDS = (
    rule(r"\b[a-zA-Z]{1,3}\d{3,15}\b"),  # jc6640
    rule(r"\b[a-zA-Z]+\d+[a-zA-Z]+\b"),  # jc6640vc
    rule(r"\b\d+[a-zA-Z]+\d+\b"),  # 6640vc231
    rule(r"(?:worldwide\s+)?(?:free\s+)?shipping"),
    rule(r"(?:free\s)?download(?:\sfree)?"),
    rule(r"\bclick\b\s(?:for|on)\s\w+"),
    rule(rf"\b{FILE_ENDING}(?:\simages?)?"),
    rule(r"\bpage\s+\d+\b"),
    rule(r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    rule("\\b\\d+\\.?\\d*[x\u0445\u00d7]\\d+\\.?\\d*\\b"),  # 30x40 cm, also with a Cyrillic x or a times sign
    rule(r"\b\s+:\s+", ": "),
    rule(r"(\D[,./])\b", r"\1 "),
    rule(r"\s+", " "),
)

ENDS = (
    rule(r"^[\"']([\w\W]+)[\"']$", r"\1"),
    rule(r"^['_,\-:;]"),
    rule(r"['_,\-:+]$"),
    rule(r"^\.\S+$"),
)


def clean_caption(caption: str) -> str:
    """One cleaning. ImportError with the install command when ftfy, which repairs broken encodings, is missing."""
    ftfy = require_ftfy()
    caption = apply(BEFORE_MARKUP, unquote_plus(caption).strip().lower())
    caption = apply(CHARACTERS, text_of(caption))
    if caption.count("-") + caption.count("_") > 3:  # this-is-my-cute-cat
        caption = caption.replace("-", " ").replace("_", " ")
    caption = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return apply(ENDS, apply(WORDS, caption)).strip()


def apply(rules: tuple[Rule, ...], caption: str) -> str:
    for pattern, replacement in rules:
        caption = pattern.sub(replacement, caption)
    return caption


def text_of(markup: str) -> str:
    """The text of a piece of HTML, its entities resolved; of a caption without any, the caption."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    return "".join(parser.text)


def require_ftfy() -> ModuleType:
    return needs("ftfy", "transformers")


class _Text(HTMLParser):
    """Collects what is neither a tag, a comment nor inside of a silent tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.text: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SILENT_TAGS:
            self._silent.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)

    def handle_charref(self, name: str) -> None:
        self.handle_data(html.unescape(f"&#{name};"))

    def handle_entityref(self, name: str) -> None:
        # what is not an entity loses its semicolon, as in "R&D;"
        self.handle_data(html5.get(f"{name};", f"&{name}"))

    def unknown_decl(self, data: str) -> None:
        if data[:6].lower() == "cdata[":
            self.handle_data(data[6:])
