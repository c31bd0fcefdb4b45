"""The tokenizer of the COCO caption metrics in plain Python: Penn Treebank tokens, lower case, punctuation dropped.

Equal to `PTBTokenizer -preserveLines -lowerCase` of Stanford CoreNLP 3.4.1 followed by pycocoevalcap's list of dropped
tokens, with its quirks: brackets stay as -lrb- and -rrb-, `!!` stays, emoji vanish. Known differences:

- Each caption is read by itself. The jar reads all captions as one text, so a single letter with a dot at the end
  ("platform C.") depends on how the next caption begins. Here it is read as before "A", which ends the sentence: c.
  The jar keeps the dot before other words, and where no caption follows.
- CR, VT, FF, NEL, U+2028 and U+2029 inside a caption count as blanks. In the jar they begin a new row and shift all
  later captions.
- About 1 in 10,000 random strings of odd signs glued together (soft hyphens, quotes of several kinds, `pTe.`).
"""

import re
from collections.abc import Callable
from functools import lru_cache

from cf_eval.captions.ptb_characters import shadow
from cf_eval.captions.ptb_rules import FROM_DIGIT, FROM_LETTER, FROM_SIGN, Rewriting
from cf_eval.captions.ptb_words import ABBREVIATIONS, CAPITALISED_ABBREVIATIONS, DROPPED, SPLIT_WORDS, TITLES

LINE_ENDS = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")
Matcher = Callable[[str, int], re.Match[str] | None]
# What the jar sees after a caption: the next one.
NEXT_ROW = "\nA "


def tokenize(caption: str) -> list[str]:
    """The tokens of one caption.

    >>> tokenize("A man's hat (blue), isn't it?")
    ['a', 'man', "'s", 'hat', '-lrb-', 'blue', '-rrb-', 'is', "n't", 'it']
    """
    tokens: list[str] = []
    for chunk in one_line(caption).split(" "):
        if (known := _by_itself(chunk)) is None:
            return kept(" ".join(treebank_tokens(one_line(caption))))
        tokens += known
    return tokens


def forget() -> None:
    """Empty the memory of words and rules that makes later captions faster."""
    _by_itself.cache_clear()
    _rules_from.cache_clear()


def one_line(caption: object) -> str:
    """The caption with a blank for every kind of line end. TypeError for what is not a string."""
    if not isinstance(caption, str):
        raise TypeError(
            f"a caption must be a string, got {type(caption).__name__}: {caption!r}; convert it first"
        )
    return LINE_ENDS.sub(" ", caption)


def kept(row: str) -> list[str]:
    """The tokens of one row of the jar's output that the metrics count."""
    return [token for token in row.rstrip().split(" ") if token and token not in DROPPED]


def treebank_tokens(caption: str) -> list[str]:
    """All tokens of a caption without line ends, in lower case, punctuation included."""
    text = shadow(caption) + NEXT_ROW
    tokens, start = [], 0
    while start < len(caption):
        if (word := PLAIN_WORD.match(text, start)) and word[0].lower() not in SPLIT_WORDS:
            tokens.append(word[0].lower())
            start = word.end() + 1
            continue
        end, written = _longest(text, start)
        token = caption[start:end]
        token = (written(token) if written else token).lower()
        if token and end > start:
            tokens.append(token)
        start = max(end, start + 1)
    return tokens


PLAIN_WORD = re.compile("[A-Za-z]+(?= )")


def _longest(text: str, start: int) -> tuple[int, Rewriting | None]:
    """Where the token at `start` ends, and how it is written. It ends at `start` when no rule knows its sign."""
    longest, end, written = start, start, None
    for match, how in _rules_from(text[start]):
        found = match(text, start)
        if found is not None and found.end() > longest:
            longest, end, written = found.end(), found.end(1), how
    return end, written


@lru_cache(maxsize=1024)
def _rules_from(sign: str) -> tuple[tuple[Matcher, Rewriting | None], ...]:
    rules = FROM_SIGN
    if sign.isascii() and sign.isalnum():
        rules = FROM_LETTER if sign.isalpha() else FROM_DIGIT
    return tuple((re.compile(rule.pattern).match, rule.written) for rule in rules)


COMMON = re.compile(r"([A-Za-z]{2,}(?:-[A-Za-z]{2,})*|[Aa])('[sS])?[.,]?")
DOTTED = {f"{word}." for word in ABBREVIATIONS | CAPITALISED_ABBREVIATIONS | TITLES} | {"a.", "ph."}


@lru_cache(maxsize=65536)
def _by_itself(chunk: str) -> tuple[str, ...] | None:
    """The tokens of what stands between two blanks, where its surroundings cannot change them: nine in ten words."""
    if chunk in ("", "."):
        return ()
    common = COMMON.fullmatch(chunk)
    if common is None or chunk.lower() in DOTTED or common[1].lower() in SPLIT_WORDS:
        return None
    return tuple(part.lower() for part in common.groups() if part)
