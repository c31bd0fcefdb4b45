"""WebDataset tars: members that share a name up to its first dot are one sample.

    00000.tar: 0001.jpg 0001.txt 0002.png 0002.json ...

The caption stands in .txt or .caption, a line per phrasing, or in a .json with a column of captions.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath

from cf_apps.data.captioned import DataError
from cf_apps.data.streams.raw import CAPTION_COLUMNS, PairUnit, RawPair, phrasings

TEXTS = (".txt", ".caption", ".text")
JSON = ".json"


def tar_unit(file: Path, pictures: frozenset[str]) -> PairUnit:
    """A tar, read from front to back. pictures: the endings that a picture may have."""

    def read(start: int) -> Iterator[RawPair]:
        try:
            with tarfile.open(file, "r:*") as tar:
                for number, (key, members) in enumerate(groupby(_files(tar), _key)):
                    if number >= start:  # those before are passed over by their headers, unread
                        found = {_ending(member): _bytes(tar, member) for member in members}
                        yield _pair(key, found, pictures)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"cannot read {file} as a tar: {error}; fetch it again, or take it away"
            ) from error

    return PairUnit(file.name, read)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # else the list grows with the tar
        if member.isfile() and not PurePosixPath(member.name).name.startswith("."):
            yield member
    _require_whole(tar)


def _require_whole(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros follow the last member: `tarfile` takes a header that is cut short for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(tarfile.BLOCKSIZE)
    if any(rest) or len(rest) not in (0, tarfile.BLOCKSIZE):
        raise tarfile.ReadError("unexpected end of data")


def _key(member: tarfile.TarInfo) -> str:
    """The name up to the first dot of its last part."""
    path = PurePosixPath(member.name)
    return (path.parent / path.name.partition(".")[0]).as_posix()


def _ending(member: tarfile.TarInfo) -> str:
    return "." + PurePosixPath(member.name).name.partition(".")[2].lower()


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = tar.extractfile(member)
    assert handle is not None  # only files come here
    return handle.read()


def _pair(key: str, members: Mapping[str, bytes], pictures: frozenset[str]) -> RawPair:
    image = next((data for ending, data in members.items() if ending in pictures), b"")
    return RawPair(key, image, _captions(members))


def _captions(members: Mapping[str, bytes]) -> tuple[str, ...]:
    """What is said of the picture; a .json that cannot be read says nothing, and costs its sample only."""
    for ending in TEXTS:
        if ending in members:
            return phrasings(members[ending].decode("utf-8-sig", errors="replace").splitlines())
    try:
        row = json.loads(members.get(JSON, b"{}"))
    except ValueError:
        return ()
    if not isinstance(row, dict):
        return ()
    return phrasings(next((row[name] for name in CAPTION_COLUMNS if name in row), None))
