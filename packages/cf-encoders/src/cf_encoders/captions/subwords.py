"""Subword tokenizers trained on the captions themselves, behind the same face as `Vocabulary`.

    bpe        byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2): no caption is unknown to it
    wordpiece  WordPiece (Schuster and Nakajima 2012; BERT): a word with a character that `build` never saw is <unk>,
               and so is the blank before it

Both read a caption in normal form: Unicode NFC, lower case, runs of white space as one blank, none at the ends.
Of that form nothing else is lost: punctuation and where blanks stand come back as they were.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from cf_encoders.tokenizer import SPECIALS, UNK, frame, unframe

INSTALL = "pip install 'cf-encoders[tokenizers]'"
WORD = "\u2581"  # Metaspace: a word begins here


class Subwords:
    """Subwords and their ids, `<pad> <unk> <bos> <eos>` first. Make one with `build` or `load`."""

    def __init__(self, tokenizer: Any) -> None:
        found = tuple(tokenizer.id_to_token(i) for i in range(len(SPECIALS)))
        if found != SPECIALS:
            raise ValueError(f"ids 0 to 3 must be {SPECIALS}, got {found}; make the tokenizer with `build`")
        # a caption that says "<eos>" means these five characters
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer

    @classmethod
    def build(cls, captions: Iterable[str], size: int, kind: str = "bpe") -> "Subwords":
        """Learn at most `size` subwords, special ones included, from these captions.

        Letters count: bpe starts from 256 bytes, wordpiece from every letter of the captions, at the beginning of a
        word and within. The same captions in any order make the same tokenizer. ValueError for an unknown kind (the
        names are listed) and for a size too small.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown subword kind {kind!r}; known: {', '.join(KINDS)}")
        return cls(KINDS[kind](captions, size))

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def normal_form(self, caption: str) -> str:
        """What `decode` gives back for the ids of this caption."""
        return self.tokenizer.normalizer.normalize_str(caption)

    def length(self, caption: str) -> int:
        """Tokens the caption takes, <bos> and <eos> included."""
        return len(self.tokenizer.encode(caption, add_special_tokens=False).ids) + 2

    def encode(
        self, captions: Sequence[str], max_tokens: int
    ) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """<bos> subwords <eos>, padded to n = max_tokens, and the mask of tokens that are not padding.

        A longer caption loses subwords at its end, never its <eos>.
        """
        encodings = self.tokenizer.encode_batch(list(captions), add_special_tokens=False)
        return frame([encoding.ids for encoding in encodings], max_tokens)

    def decode(self, ids: Int[Tensor, "b n"]) -> list[str]:
        """The captions in normal form, up to the first <eos>; <pad> and <bos> are left out."""
        rows = [unframe(row) for row in ids.tolist()]
        # both kinds mark the beginning of a word by a blank before it, also of the first
        return [text.strip() for text in self.tokenizer.decode_batch(rows, skip_special_tokens=False)]

    def save(self, path: Path | str) -> None:
        """Write the tokenizers library's JSON file."""
        self.tokenizer.save(str(path))

    @classmethod
    def load(cls, path: Path | str) -> "Subwords":
        """The inverse of `save`. ValueError when the file is not a tokenizer."""
        library = _library()
        text = Path(path).read_text(encoding="utf-8")
        try:
            return cls(library.Tokenizer.from_str(text))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"{path} is not a subword tokenizer; expected a file of `save`") from error


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(f"subwords need tokenizers: {INSTALL}") from error
    return tokenizers


def _normalizer() -> Any:
    library = _library()
    n = library.normalizers
    return n.Sequence([n.NFC(), n.Lowercase(), n.Replace(library.Regex(r"\s+"), " "), n.Strip()])


def _train_bpe(captions: Iterable[str], size: int) -> Any:
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    if size < len(SPECIALS) + len(alphabet):
        raise ValueError(f"bpe needs a size of at least {len(SPECIALS) + len(alphabet)}, got {size}")
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def _train_wordpiece(captions: Iterable[str], size: int) -> Any:
    library, captions = _library(), list(captions)
    tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = _normalizer()
    # every punctuation mark stands alone, so that "##" can only mean "goes on"
    before = library.pre_tokenizers
    tokenizer.pre_tokenizer = before.Sequence([before.Metaspace(), before.Punctuation()])
    goes_on = library.decoders.Replace(library.Regex("^##(?=.)"), "")
    tokenizer.decoder = library.decoders.Sequence([goes_on, library.decoders.Metaspace()])
    letters = sorted(
        {c for caption in captions for c in tokenizer.normalizer.normalize_str(caption)} - {" ", WORD}
    )
    # given first and in order: the library would number letters as its hash table has them, another way each run
    given = [*SPECIALS, WORD, *letters, *(f"##{letter}" for letter in letters)]
    if size < len(given):
        raise ValueError(f"wordpiece needs a size of at least {len(given)}, got {size}")
    trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=given, show_progress=False)
    learner = library.Tokenizer(library.models.WordPiece(unk_token=UNK))
    learner.normalizer, learner.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    learner.train_from_iterator(captions, trainer)
    tokenizer.model = library.models.WordPiece(learner.get_vocab(), unk_token=UNK)
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


KINDS: dict[str, Callable[[Iterable[str], int], Any]] = {"bpe": _train_bpe, "wordpiece": _train_wordpiece}
