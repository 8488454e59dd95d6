"""The files of a block that is backed up, read and held against the checksums that were written with them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from streamgauge.backup.manifest import FileSum
from streamgauge.errors import Corrupt, StorageError
from streamgauge.store import fs, names
from streamgauge.store.block_format import Checksums, decode_checksums
from streamgauge.store.events.block_reader import checked_sections
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.ports import BlockMeta

Section = tuple[int, int]
"""Where a part of a file ends, and the CRC-32 of the bytes between it and the end of the part before."""
Advance = Callable[[int], None]
"""Told of each piece, in bytes."""


class BlockGone(StorageError):
    """A file of a block is not there any more."""


class BlockFolder:
    """A block in a data folder, while it is backed up. Raises BlockGone, Corrupt and StorageError."""

    def __init__(self, data: Path, meta: BlockMeta | EventBlockMeta) -> None:
        self.folder: Path
        self._sections: Mapping[str, Sequence[Section]]
        if isinstance(meta, EventBlockMeta):
            self.folder = names.event_block_dir(data, meta.id)
            for name in names.event_block_files():
                with there(self.folder / name):
                    fs.size_of(self.folder / name)
            self._sections = checked_sections(self.folder)
        else:
            self.folder = names.block_dir(data, meta.id)
            self._sections = _sections(self.folder, meta)

    @property
    def files(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._sections)

    def size(self, name: str) -> int:
        """Bytes that a file must have."""
        return self._sections[name][-1][0]

    def path(self, name: str) -> Path:
        return self.folder / name

    def pieces(self, name: str) -> Iterator[bytes]:
        """A file, checked on the way: what was given before an error is not to be used."""
        path = self.path(name)
        with there(path):
            yield from _checked(fs.pieces_of(path), self._sections[name], path)


def _sections(folder: Path, meta: BlockMeta) -> dict[str, Sequence[Section]]:
    path = names.checksums_file(folder)
    with there(path):
        raw = b"".join(fs.pieces_of(path))
    try:
        sums = decode_checksums(raw)
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is damaged: {error}") from None
    return {
        names.rows_name(meta.resolution): _of_rows(sums),
        names.SERIES: _of_series(sums),
        names.CHECKSUMS: [(len(raw), zlib.crc32(raw))],
    }


@contextmanager
def there(path: Path) -> Iterator[None]:
    """Turns a file that is missing into BlockGone."""
    try:
        yield
    except FileNotFoundError:
        raise BlockGone(f"{path} is missing") from None


def _of_rows(sums: Checksums) -> list[Section]:
    groups = zip(sums.byte_ends.tolist(), sums.row_groups.tolist(), strict=True)
    return [*groups, (sums.samples_size, sums.samples_footer)]


def _of_series(sums: Checksums) -> list[Section]:
    series = sums.series
    return [(series.footer_start, series.body), (series.size, series.footer)]


def _checked(pieces: Iterable[bytes], sections: Sequence[Section], path: Path) -> Iterator[bytes]:
    """The pieces as they are, or Corrupt as soon as a section of them is not what it was."""
    begin = at = crc = 0
    left = list(reversed(sections))
    for piece in pieces:
        view = memoryview(piece)
        while left and at + len(view) >= left[-1][0]:
            end, expected = left.pop()
            if zlib.crc32(view[: end - at], crc) != expected:
                raise Corrupt(f"{path} is damaged between bytes {begin} and {end}")
            view, begin, at, crc = view[end - at :], end, end, 0
        crc = zlib.crc32(view, crc)
        at += len(view)
        yield piece
    if at != sections[-1][0]:
        raise Corrupt(f"{path} has {at} bytes where {sections[-1][0]} were written")


class Summing:
    """Pieces on their way, and what they come to."""

    def __init__(self, pieces: Iterable[bytes], advance: Advance) -> None:
        self._pieces = pieces
        self._advance = advance
        self._size = self._crc = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._size += len(piece)
            self._crc = zlib.crc32(piece, self._crc)
            yield piece
            self._advance(len(piece))

    def sum(self) -> FileSum:
        """Of what has come so far."""
        return FileSum(self._size, self._crc)


def sum_of(pieces: Iterable[bytes], advance: Advance) -> FileSum:
    """Of a file whose bytes are not needed."""
    summing = Summing(pieces, advance)
    for _ in summing:
        pass
    return summing.sum()
