"""Captions to draw, from the command line or from a file, each with the place it came from.

    prompts.txt            a caption a line; empty lines and lines that begin with # are passed over
    prompts.jsonl          a caption a line: {"prompt": "a red circle"}, also under `caption` or `text`, or a bare "..."
    prompts.json           a list of the same
    geneval                the 553 prompts of GenEval, which cf-eval carries

Files are UTF-8, with or without a byte order mark, or UTF-16 with one; lines end as on any system.
"""

import codecs
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cf_encoders import VocabLanguageModel

from cf_apps.data.captioned import DataError
from cf_apps.t2i.model import T2IModel

GENEVAL = "geneval"
KEYS = ("prompt", "caption", "text")
SHOWN_CHARACTERS, SHOWN_WORDS = 60, 5
_EXAMPLE = '{"prompt": "a red circle"}'
_LINE_END = re.compile(r"\r\n|\r|\n")  # str.splitlines would also break captions at a form feed or U+2028


@dataclass(frozen=True)
class Prompt:
    """A caption to draw. place: where it was said, for error messages. Raises DataError for one that says nothing."""

    text: str
    place: str

    def __post_init__(self) -> None:
        if (fault := _fault(self.text)) is not None:
            raise DataError(f"{self.place}: {fault}")


def typed_prompts(captions: Sequence[str]) -> list[Prompt]:
    """Captions of the command line."""
    return [Prompt(text, f"caption {number}") for number, text in enumerate(captions, start=1)]


def named_prompts(name: str) -> list[Prompt]:
    """`geneval`, or the captions of a file."""
    if name == GENEVAL:
        from cf_eval import geneval_prompts

        return [Prompt(prompt.text, f"GenEval's prompt {i}") for i, prompt in enumerate(geneval_prompts())]
    return read_prompts(Path(name))


def read_prompts(path: Path) -> list[Prompt]:
    """The captions of a file, in order; layouts in the module's docstring.

    Raises DataError naming the file and the line for what cannot be read or drawn, and for a file without captions.
    """
    text = _text(path)
    read = {".jsonl": _json_lines, ".json": _json_list}.get(path.suffix.lower(), _plain_lines)
    prompts = [Prompt(caption, place) for caption, place in read(text, path)]
    if not prompts:
        raise DataError(f"{path} holds no caption; write one a line, or in .jsonl {_EXAMPLE}")
    return prompts


def require_short(model: T2IModel, prompts: Sequence[Prompt]) -> None:
    """Raise DataError naming the first caption that the model would have to cut."""
    for index in model.language.too_long([prompt.text for prompt in prompts]):
        prompt = prompts[index]
        raise DataError(
            f"{prompt.place}: caption of more than {model.language.max_tokens} tokens: {shown(prompt.text)}; shorten it"
        )


def unknown_words(model: T2IModel, prompts: Sequence[Prompt]) -> list[str]:
    """A line for people where captions have words that the model never learned; none where it knows them all."""
    if not isinstance(model.language, VocabLanguageModel):
        return []
    counts = model.language.vocabulary.unknown(prompt.text for prompt in prompts)
    if not counts:
        return []
    words = ", ".join(shown(word) for word, _ in counts.most_common(SHOWN_WORDS))
    more = f" and {len(counts) - SHOWN_WORDS} more" if len(counts) > SHOWN_WORDS else ""
    return [f"words that the model never learned, drawn as one unknown word: {words}{more}"]


def shown(text: str) -> str:
    """The text in quotes, cut where it is long, control characters spelled out."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…")


def _fault(text: str) -> str | None:
    """What keeps a caption from being drawn, and what to do; None where nothing does."""
    for place, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind == "Cs":  # no tokenizer, no file takes it
            return f"the caption {shown(text)} has half a character at place {place}; write it as UTF-8"
        if kind == "Cc" and not character.isspace():
            return f"the caption {shown(text)} has the control character {character!r}; take it out"
    if all(character.isspace() or unicodedata.category(character) == "Cf" for character in text):
        return f"the caption {shown(text)} is empty; say what to draw (without a caption: --scale 0)"
    return None


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"cannot read the prompts {path}: {reason}; give a .txt, .jsonl or .json file"
        ) from error
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="ignore")
        place = f"line {1 + len(_LINE_END.findall(before))}"
        raise DataError(
            f"{path}: {place} is not {encoding} ({error.reason}); save the file as UTF-8"
        ) from error


def _plain_lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for place, line in _lines(text, path):
        if not line.startswith("#"):
            yield line, place


def _json_lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for place, line in _lines(text, path):
        yield _caption(_json(line, place), place), place


def _json_list(text: str, path: Path) -> Iterator[tuple[str, str]]:
    items = _json(text, str(path))
    if not isinstance(items, list):
        raise DataError(f"{path} holds a {type(items).__name__}; a list like [{_EXAMPLE}] was expected")
    for number, item in enumerate(items, start=1):
        place = f"{path}: item {number}"
        yield _caption(item, place), place


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of those that are not blank, without the blanks around them."""
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line := line.strip():
            yield f"{path}: line {number}", line


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}); write {_EXAMPLE}") from error


def _caption(item: Any, place: str) -> str:
    if isinstance(item, dict):
        names = [key for key in KEYS if key in item]
        if not names:
            raise DataError(f"{place} has none of {', '.join(KEYS)}; it has {shown(', '.join(item))}")
        item = item[names[0]]
    if not isinstance(item, str):
        raise DataError(f"{place} holds {shown(str(item))} for a caption; write {_EXAMPLE}")
    return item
