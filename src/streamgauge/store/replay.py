"""Reading the log back: every record that can be read, and a word about what cannot."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from streamgauge.errors import Corrupt, StorageError
from streamgauge.store import fs, names
from streamgauge.store.damage import Damage
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import Record
from streamgauge.store.segment import HEADER_BYTES, Frame, Frames, Gap, Header, decode_header

MAX_SEGMENT_BYTES = 1 << 30
"""No segment is larger: it is what replay holds in memory at once. Segments are closed at a fraction of it."""
_SECTOR = 512
"""Bytes that a disk writes whole or not at all: the least that any has."""


@dataclass
class Segment:
    """One segment file, once it was read or while it is written."""

    sequence: int
    path: Path
    mark: int  # 0: unreadable
    end: int  # bytes that count
    last_commit: int  # the last commit in it or in any before it
    after: int  # every commit in it is above this
    damage: str | None = None  # why it must be kept, when all that can be read of it is in blocks


@dataclass
class _File:
    sequence: int
    path: Path
    header: Header | None  # None: unreadable


@dataclass
class LogReader:
    """Replays the log of a data folder, once: iterate to the end, then look at the other attributes.

    With `writable`, torn ends are cut off and what is not ours is set aside; without, nothing is written.
    `flushed_through` is the commit up to which blocks hold everything: a segment below it is not missed.
    """

    data: Path
    store_id: str
    flushed_through: int
    writable: bool
    damage: list[Damage] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    last_commit: int = 0  # the highest that was ever given, as far as the log tells
    next_sequence: int = 1

    def __iter__(self) -> Iterator[Record]:
        files = self._chain(_list_files(self.data))
        for file, following in zip_longest(files, files[1:]):
            self._note_missing(file)
            counted = _bytes_counted(file, following)
            if counted == 0:
                self._discard(file)
                continue
            yield from self._read(file, counted, last=following is None)

    def _chain(self, files: Sequence[_File]) -> list[_File]:
        self.next_sequence = max((file.sequence for file in files), default=0) + 1
        ours: list[_File] = []
        for file in files:
            if self._belongs(file, ours[-1] if ours else None):
                ours.append(file)
            else:
                name = file.path.name
                self._set_aside(file.path, f"log segment {name} is of another data folder, or its place is another")
        return ours

    def _belongs(self, file: _File, before: _File | None) -> bool:
        """Whether a segment was written here and after the one before it; when neither can be told, it was."""
        header = file.header
        if header is None:
            return True
        if header.sequence != file.sequence or header.store_id != uuid.UUID(self.store_id).bytes:
            return False
        if before is None or before.header is None or before.sequence != header.previous:
            return True
        return header.previous_mark in (0, before.header.mark)

    def _note_missing(self, file: _File) -> None:
        """A header names the segment before it: if that is gone, and it held what no block has, say so."""
        header = file.header
        if header is None:
            return
        known = max(self.last_commit, self.flushed_through)
        present = self.segments and self.segments[-1].sequence >= header.previous
        if header.previous and not present and header.previous_commit > known:
            path = names.segment_file(self.data, header.previous)
            lost = f"commits {known + 1} to {header.previous_commit} are lost as far as they were in it"
            self.damage.append(Damage(str(path), f"log segment {path.name} is missing; {lost}; the others are served"))
        self.last_commit = max(self.last_commit, header.previous_commit)

    def _read(self, file: _File, counted: int | None, last: bool) -> Iterator[Record]:
        try:
            data, unreadable = fs.read_file(file.path, MAX_SEGMENT_BYTES)
        except Corrupt as error:
            self._set_aside(file.path, error.message)
            return
        if file.header is None and len(data) <= HEADER_BYTES and counted == (None if last else HEADER_BYTES):
            self._discard(file)  # the server stopped while it made the file
            return
        mark, before = file.header.mark if file.header else 0, self.last_commit
        segment = Segment(file.sequence, file.path, mark, HEADER_BYTES, before, after=before)
        self.segments.append(segment)
        gaps: list[Gap] = []
        commit = self.last_commit
        readable_from = max((end for _, end in unreadable), default=0)
        frames = Frames(data, file.header.mark if file.header else None, len(data) if counted is None else counted)

        def may_be_torn(gap: Gap) -> bool:
            return last and gap.start >= readable_from and _lacks_a_sector(data, gap)

        for end, record, _ in _that_count(frames, may_be_torn, gaps):
            if record.commit < commit:  # whole, and yet not what was written here
                gaps.append(Gap(segment.end, end, last=False))
                continue
            segment.end = end
            commit = record.commit
            yield record
        self.last_commit = segment.last_commit = commit
        if last and gaps and gaps[-1].last and gaps[-1].start >= readable_from:
            self._cut(segment, data[gaps.pop().start :])
        self._note_damage(file, segment, gaps, (counted or 0) - len(data))

    def _note_damage(self, file: _File, segment: Segment, gaps: Sequence[Gap], missing: int) -> None:
        wrong = []
        if file.header is None:
            wrong.append("its header")
        if gaps:
            size = sum(gap.end - gap.start for gap in gaps)
            wrong.append(f"{size} bytes in {len(gaps)} places, the first at byte {gaps[0].start}")
        if missing > 0:
            wrong.append(f"{missing} bytes that its end lacks")
        if wrong:
            segment.damage = f"log segment {segment.path.name} is damaged: {' and '.join(wrong)} cannot be read"
            kept = "every other record of it is served, and the file is kept"
            self.damage.append(Damage(str(segment.path), f"{segment.damage}; {kept}"))

    def _cut(self, segment: Segment, tail: memoryview) -> None:
        """Remove a torn end, so that it is said once, and zeros that were written ahead. What the cut leaves in doubt
        the next header settles."""
        torn = tail[: len(tail.tobytes().rstrip(b"\0"))]
        if not torn:
            if self.writable:
                with suppress(StorageError):
                    fs.truncate(segment.path, segment.end)
            return
        why = (
            f"the last {len(torn)} bytes of log segment {segment.path.name} are not a whole record: the server or the "
            "machine stopped while they were written, before they were acknowledged"
        )
        if self.writable:
            why += self._try_to_cut(segment, torn, why)
        self.damage.append(Damage(str(segment.path), why))

    def _try_to_cut(self, segment: Segment, torn: memoryview, why: str) -> str:
        try:
            kept = fs.keep_copy(torn, f"{segment.path.name}.end", segment.path, self.data, why)
            outcome = f"; they are cut off and kept as {kept}"
            hit("log.repair.before_truncate")
            fs.truncate(segment.path, segment.end)
        except StorageError as error:
            return f"; they are left in place and ignored ({error})"
        return outcome

    def _discard(self, file: _File) -> None:
        """Remove a segment that was given up while it was made. One that holds something came back from elsewhere."""
        if fs.size_of(file.path) > HEADER_BYTES:
            self._set_aside(file.path, f"log segment {file.path.name} was missing when the one after it was begun")
        elif self.writable:
            fs.remove_file(file.path)

    def _set_aside(self, path: Path, why: str) -> None:
        self.damage.append(fs.set_aside(path, self.data, why) if self.writable else Damage(str(path), why))


def _that_count(items: Iterable[Frame | Gap], may_be_torn: Callable[[Gap], bool], gaps: list[Gap]) -> Iterator[Frame]:
    """The frames that count; what is between them goes into `gaps`.

    Of the last append nothing counts that stands behind what the disk did not get to: it may need what is missing, as
    samples do the labels of their series and events those before them. Had it been acknowledged, all would be there."""
    torn: int | None = None  # the place in `gaps` where the append that is being read lacks something
    behind: list[Frame] = []
    for item in items:
        if isinstance(item, Gap):
            if torn is None and may_be_torn(item):
                torn = len(gaps)
            gaps.append(item)
        elif torn is not None and not item.begins:
            behind.append(item)
        else:  # what follows was written after that had been synced: it is damaged, not torn
            yield from behind
            torn, behind = None, []
            yield item
    if torn is not None and behind:
        gaps[torn:] = [Gap(gaps[torn].start, max(gaps[-1].end, behind[-1].end), last=True)]


def _lacks_a_sector(data: memoryview, gap: Gap) -> bool:
    """Whether a sector of a gap was never written, as far as it can be told: there are zeros, written ahead."""
    ends = range(gap.start - gap.start % _SECTOR + _SECTOR, gap.end + 1, _SECTOR)
    return any(not bytes(data[max(end - _SECTOR, gap.start) : end]).strip(b"\0") for end in ends)


def log_store_id(data: Path) -> str | None:
    """The store that the log of a folder belongs to, or None where no segment tells. For a folder without catalog."""
    for file in _list_files(data):
        if file.header is not None:
            return uuid.UUID(bytes=file.header.store_id).hex
    return None


def _list_files(data: Path) -> list[_File]:
    """The segment files in order. Raises FormatTooNew."""
    folder = names.log_dir(data)
    files = []
    for name in fs.list_dir(folder):
        sequence = names.segment_sequence(name)
        if sequence is not None:
            path = folder / name
            files.append(_File(sequence, path, _read_header(path)))
    return sorted(files, key=lambda file: file.sequence)


def _read_header(path: Path) -> Header | None:
    try:
        return decode_header(fs.read_start(path, HEADER_BYTES))
    except Corrupt:
        return None


def _bytes_counted(file: _File, following: _File | None) -> int | None:
    """How many bytes of a segment count: what the next header says; 0 when it does not know the segment, whose making
    had failed; None when nothing says so."""
    if following is None or following.header is None or following.header.previous > file.sequence:
        return None
    return following.header.previous_bytes if following.header.previous == file.sequence else 0
