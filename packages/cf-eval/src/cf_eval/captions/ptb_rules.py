"""Our own rules for the tokens of the Penn Treebank, as Stanford CoreNLP 3.4.1 cuts them.

A rule is a pattern whose first group is the token; what follows the group must be there but stays for the next token.
At every position the rule that matches the longest text wins, what must follow counted in; among equally long ones the
first in the table. Patterns run over the shadow of a caption (ptb_characters) and are written so that their greedy
match is their longest. A character that no rule takes is deleted.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cf_eval.captions.ptb_characters import DIGIT, HYPHEN, LETTER, MARK, SYMBOL
from cf_eval.captions.ptb_words import (
    ABBREVIATIONS,
    CAPITALISED_ABBREVIATIONS,
    FILE_ENDINGS,
    NEVER_CAPITALS,
    NUMBERED,
    SENTENCE_OPENERS,
    TITLES,
)

Rewriting = Callable[[str], str]


class Rule(NamedTuple):
    """A kind of token. written: what its text becomes; texts are lower-cased afterwards."""

    pattern: str
    written: Rewriting | None = None


def _as(text: str) -> Rewriting:
    return lambda _: text


def _plain(text: str) -> str:
    """Typographic apostrophes as plain ones, no soft hyphens."""
    if text.isascii() and "&" not in text:
        return text
    return text.translate(PLAIN).replace("&apos;", "'").replace("&amp;", "&") or "-"


def _in_one_piece(text: str) -> str:
    """Blanks inside a token become no-break spaces: the jar's rows are split at plain blanks."""
    return text.replace(" ", "\xa0").replace("(", "-LRB-").replace(")", "-RRB-").replace("\xad", "")


def _quotes(text: str) -> str:
    return re.sub("[\x91\u2018\u201b\u2039]", "`", text).translate(QUOTES)


PLAIN = {0xAD: "", 0x92: "'", 0x2019: "'", 0x91: "`", 0x2018: "`", 0x201B: "`"}
OPENING, CLOSING = dict.fromkeys((0x93, 0x201C, 0xAB), "``"), dict.fromkeys((0x94, 0x201D, 0xBB), "''")
QUOTES = {**OPENING, **CLOSING, 0x92: "'", 0x2019: "'", 0x203A: "'"}
FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
CURRENCY = {"¢": "cents", "£": "#", "\x80": "$", "¤": "$", "\u20a0": "$", "€": "$"}
BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}


def _any_case(words: Iterable[str]) -> str:
    """One of the words in any case of letters."""
    return "|".join(
        "".join(c if word in NEVER_CAPITALS and i else f"[{c}{c.upper()}]" for i, c in enumerate(word))
        for word in sorted(words, key=len, reverse=True)
    )


def _capitalised(words: Iterable[str]) -> str:
    return "|".join(f"{word[0].upper()}(?:{_any_case([word[1:]])})" for word in words)


D = f"[0-9{DIGIT}]"
ENTITY = "&[aeiouAEIOU](?:acute|grave|uml);"
# L and W are letters and digits of plain words, where accents count; T is for hyphenated words, where they do not
L = rf"(?:[A-Za-z\xad{LETTER}{MARK}]|{ENTITY})"
W = rf"(?:[A-Za-z0-9\xad{LETTER}{MARK}{DIGIT}]|{ENTITY})"
T = rf"[A-Za-z0-9{LETTER}{DIGIT}]"
APOS = r"(?:['\x92\u2019]|&apos;)"
ANY_APOS = r"(?:['\x92\u2019`\x91\u2018\u201b]|&apos;)"
IS = rf"{APOS}(?:[msdMSD]|[rR][eE]|[vV][eE]|[lL][lL])"
NOT = rf"[nN]{ANY_APOS}[tT]"
NUMBER = rf"(?:{D}*(?:[.:,\xad\u066b\u066c]{D}+)+|{D}+)"
ACRONYM = r"[A-Za-z](?:\.[A-Za-z])*"
WORD = rf"{L}{W}*(?:[.!?]{L}{W}*)*"
PIECE = rf"(?:[dDoOlL]{ANY_APOS}{T}{T}+|{T}+)"
THING = rf"{PIECE}(?:[-_{HYPHEN}]{PIECE})*"
MEASURE = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+"
INITIALS = "[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+"
SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
TITLE = rf"(?:{_any_case(TITLES)})"
ABBREVIATION = rf"(?:{_any_case(ABBREVIATIONS)}|{_capitalised(CAPITALISED_ABBREVIATIONS)})"
OPENER = "|".join(re.escape(word) for word in SENTENCE_OPENERS)
NAME = "[A-Za-z][A-Za-z0-9:._-]*"
TAG = (
    rf"""(?:<{NAME}(?: +{NAME}(?: *= *(?:'[^'\n]*'|"[^"\n]*"))?)* */?>"""
    rf"|</{NAME} *>|<[!?][A-Za-z-][^>\n]*>)"
)
URL = r'[^ \t\n"<>|(){}]+[^ \t\n"<>|.!?(){},-]'
WWW = r'www\.(?:[^ \t\n"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}'
# from "," to "_" is a range: no digits and capitals in the name of a host
HOST = r"""(?:[^ \t\n"`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu)"""
MAIL = r'[^ \t\n\xa0"<>|(){}]'
MAIL_PART = r'[^ \t\n\xa0"<>|(){}.]'
BLANK = r"[ \t\xa0\u2000-\u200a\u3000]"
END = r"[ \t\n\xa0\u2000-\u200a\u3000]"

ENGLISH = (
    Rule(rf"({_any_case(['can'])})(?:{_any_case(['not'])})"),
    Rule(rf"({_any_case(['gon', 'wan'])})[nN][aA]"),
    Rule(r"([gG][oO][tT])[tT][aA]"),
    Rule(rf"({_any_case(['lem', 'gim'])})[mM][eE]"),
    # "it" of "it's", "do" of "don't"
    Rule(rf"({WORD}){IS}", _plain),
    Rule(rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*){NOT}", _plain),
    Rule(rf"({NOT})", _plain),
    Rule(rf"([lLdDjJ]{APOS}|(?:{_any_case(['dunkin', 'somethin', 'ol'])}){APOS})"),
    Rule(rf"([A-HJ-XZn]{ANY_APOS}[A-Za-z{LETTER}][A-Za-z{LETTER}]+)"),
    Rule(rf"([A-Za-z{LETTER}]+[aeiouyAEIOUY]{ANY_APOS}[aeiouA-Z][A-Za-z{LETTER}]*)"),
    Rule(rf"([yY]{APOS})[A-Za-z{LETTER}]"),
    Rule(rf"([cC]{ANY_APOS}[mM][oO][nN]|[eE]{ANY_APOS}[eE][rR]|[oO]{ANY_APOS}[oO])"),
    Rule(
        rf"([cC][aA][pP]{ANY_APOS}[nN]|[cC]{ANY_APOS}est|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls|C\.D\.s|pro-|anti-)"
    ),
    Rule(rf"({WORD})", _plain),
)
ABBREVIATED = (
    # a single letter before the beginning of a sentence gives its dot away
    Rule(rf"([A-Za-z])\.{END}+(?:{OPENER}|{TAG}){END}"),
    # not in "st.louis", which is one word; but "inc.x" is two
    Rule(rf"({TITLE}\.)"),
    Rule(rf"({ABBREVIATION}\.)[\s\S]{{2}}"),
    # a dot before a comma does not end the sentence and stays
    Rule(rf"({WORD}\.)[,;:\u3001]", _plain),
    Rule(rf"({THING}\.)[,;:\u3001]", _plain),
    Rule(rf"({MEASURE}\.)[,;:\u3001]", _plain),
    Rule(rf"({INITIALS}\.)[,;:\u3001]", _plain),
    Rule(rf"({ACRONYM}\.|[eE][dD]\.[dD]\.|[pP][hH]\.(?:[dD]\.)?)"),
    Rule(rf"((?:{_any_case(NUMBERED)})\.){END}?{D}"),
    Rule(r"([cC]\+\+|[cC]#|[fF]#)"),
)
JOINED = (
    Rule(r"([A-Z]+\$)"),
    # a face: ^_^
    Rule(r"([\^x=~<>]\.\[\^x=~<>]|[-^x=~<>']_[-^x=~<>'])"),
    Rule(rf"({THING})", _plain),
    Rule(rf"({MEASURE})", _plain),
    Rule(rf"({INITIALS})", _plain),
    Rule(rf"({SLASHED}(?:\\?/{SLASHED}){{1,2}})"),
)
ADDRESSES = (
    Rule(rf"(https?://{URL})"),
    Rule(rf"((?:{WWW}|{HOST})(?:/{URL})?)"),
    Rule(rf"([A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*\.(?:{_any_case(FILE_ENDINGS)}))(?:{END}|[.?!,])"),
    Rule(rf"((?:<|&lt;)?[a-zA-Z0-9]{MAIL}*@(?:{MAIL_PART}+\.)*{MAIL_PART}+(?:>|&gt;)?)"),
)
NUMBERS = (
    Rule(rf"([-+]?{NUMBER})", _plain),
    Rule(rf"({D}{{1,2}}[-/]{D}{{1,2}}[-/]{D}{{2,4}})"),
    Rule(rf"((?:{D}{{1,4}}[- \xa0])?{D}{{1,4}}(?:\\?/|\u2044){D}{{1,4}})", _in_one_piece),
    Rule(r"((?:\+\+?)?[0-9]{2,4}[- \xa0][0-9]{2,4}[- \xa0][0-9]{3,4}[- \xa0]?[0-9]{3,5})", _in_one_piece),
    Rule(r"((?:\+\+?)?[0-9]{2,4}[- \xa0][0-9]{3,4}[- \xa0]?[0-9]{3,5})", _in_one_piece),
    Rule(r"(\([0-9]{2,3}\)[ \xa0]?[0-9]{3,4}[- \xa0]?[0-9]{3,5})", _in_one_piece),
    Rule(r"((?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5})"),
)
SIGNS = (
    Rule(rf"({BLANK}+)", _as("")),
    Rule(rf"({TAG})", _in_one_piece),
    Rule(r"(&(?:MD|mdash|ndash);|[-\x96\x97\u2013\u2014\u2015])", lambda s: s if s == "-" else "--"),
    Rule("(&(?:lt|LT);)", _as("<")),
    Rule("(&(?:gt|GT);)", _as(">")),
    Rule("(&[aA][mM][pP];)", _as("&")),
    Rule("(&(?:nbsp|NBSP);)", _as("")),
    Rule("(&(?:quot|QUOT);)", _as("''")),
    Rule("(&#[0-9]+;)"),
    Rule(rf"('[tT])(?:{_any_case(['is', 'was'])})"),
    Rule(rf"({APOS}[nN]{APOS}|{APOS}[nN]|{APOS}[eE][mM]|{APOS}[2-9]0[sS])"),
    Rule(rf"({APOS}(?:{_any_case(['till', 'til', 'cause'])}))"),
    Rule(rf"({IS})[^A-Za-z]", _plain),
    Rule(rf"({APOS}[0-9][0-9]){END}"),
    Rule(r"(@[a-zA-Z_][a-zA-Z_0-9]*)"),
    Rule(rf"(#[A-Za-z\xad{LETTER}{MARK}]+)"),
    Rule(r"(\$|#+)"),
    Rule("([¢£¤¥\x80\u20a0€])", lambda s: CURRENCY.get(s, s)),
    Rule("([¼½¾\u2153\u2154])", FRACTIONS.__getitem__),
    Rule(r"([⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+))"),
    Rule(r"(-(?:[LR][RCS]B)-)"),
    Rule(r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _in_one_piece),
    Rule(r"(\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\))", _in_one_piece),
    Rule(r"([()\[\]{}])", BRACKETS.__getitem__),
    Rule(r"(-+)", lambda s: "--" if 3 <= len(s) <= 4 else s),
    Rule(r"(\.\.\.+|\.(?: \.){2,}|[\x85\u2026])", _as("...")),
    Rule(r"([!?]+|\*+|(?:\\\*){1,3}|_+|<<?|>>?|``?)"),
    Rule(r"(\"|''?|&apos;)", lambda s: "''" if s in ('"', "''") else "'"),
    Rule("([`\x91-\x94\u2018-\u201f«»\u2039\u203a]{1,2})", _quotes),
    Rule(r"(\xad)", _as("-")),
    # an opening quote
    Rule(r"(')[A-Za-z][^ \t\n\r\xa0]"),
    Rule(rf"({IS})", _plain),
    Rule(r"(@+)"),
    Rule(rf"([-.,:;/%&=+~^|⁺⁻₊₋\\@{SYMBOL}\u2044])"),
)

# The rules that can begin with an ASCII letter, with a digit; any of them may begin with anything else.
FROM_LETTER = (*ENGLISH, *ABBREVIATED, *JOINED, *ADDRESSES)
FROM_DIGIT = (*ABBREVIATED, *JOINED, *ADDRESSES, *NUMBERS)
FROM_SIGN = (*ENGLISH, *ABBREVIATED, *JOINED, *ADDRESSES, *NUMBERS, *SIGNS)
