"""The import of one file: read, send, keep account.

Blocks are read and parsed on the calling thread; one thread sends them, in their order, so that what was acknowledged
is always a beginning of the file. What a block became counts once all of it is acknowledged.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from streamgauge.commands.client import ServerUnreachable
from streamgauge.commands.importer.blocks import Block, Position
from streamgauge.commands.importer.progress import Progress
from streamgauge.commands.importer.state import Saved, StateFile, Tally
from streamgauge.commands.importer.targets import Answer, Target
from streamgauge.errors import BadInput, Busy, StorageError, StreamgaugeError, TooLarge
from streamgauge.model.arrays import Int64s
from streamgauge.model.batch import Metadata
from streamgauge.wire.findings import Reason
from streamgauge.wire.imported import Imported, Reader
from streamgauge.wire.sample_table import SeriesRows, encode, part_of, portions

REQUEST_ROWS = 262_144
"""Samples of one request: 5 MB and the series' texts, which each request has anew; the more samples share them, the
better."""
_REQUESTS_AHEAD = 2
"""Encoded and not yet acknowledged: one on its way while the next is being made."""
_MAX_HELD = 256
"""Blocks of one request: where there is hardly a sample in them, it is still noted how far they are read."""
_SAVE_SECONDS = 1.0
_RETRY_SECONDS = 2.0

T = TypeVar("T")


class TooOld(StreamgaugeError):
    """The server does not keep samples that are so old, and nobody said that they may be left out."""


@dataclass(frozen=True, slots=True)
class Options:
    """skip_old: samples older than the server keeps may be left out. patience: seconds that a server, or a disk, which
    takes nothing is waited for."""

    skip_old: bool = False
    patience: float = 600.0


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A block. end: where the next one begins. read: bytes of the file up to its end, as they are on disk."""

    imported: Imported
    end: Position
    memory: Mapping[str, Any]
    read: int


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request. places: of its samples. oldest: of their times, or older, ms. finished: blocks that end with it."""

    answer: Future[Answer]
    places: Int64s
    oldest: int | None
    finished: list[_Parsed]


@dataclass(frozen=True, slots=True)
class Patience:
    """Waits for a place that takes nothing now, up to `seconds`, unless `stop` is set meanwhile."""

    seconds: float
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self, send: Callable[[], T]) -> T:
        """Send until it is taken. Raises what it fails with when that is over."""
        began = time.monotonic()
        waited = False
        while True:
            try:
                answer = send()
            except (Busy, StorageError, ServerUnreachable) as error:
                pause = float(error.retry_after or _RETRY_SECONDS) if isinstance(error, Busy) else _RETRY_SECONDS
                if time.monotonic() - began + pause > self.seconds:
                    raise
                if not waited:
                    self.progress.say(f"waiting, and trying again every {pause:.0f} s: {error.message}")
                waited = True
                if self.stop.wait(pause):
                    raise
            else:
                if waited:
                    self.progress.say("going on")
                return answer


@dataclass(slots=True)
class Import:
    """One file's. state: None where a run cannot be gone on with. `run` once."""

    target: Target
    reader: Reader
    state: StateFile | None
    progress: Progress
    options: Options
    tally: Tally = field(default_factory=Tally)
    places: int = 0  # lines, or requests, that have been parsed or were done before
    whole: bool = False  # the file has been read to its end
    _stop: threading.Event = field(default_factory=threading.Event)
    _waiting: deque[_Sent] = field(default_factory=deque)
    _done: Saved | None = None  # and not noted yet
    _saved_at: float = float("-inf")

    def run(self, blocks: Iterator[Block], read: Callable[[], int]) -> None:
        """read: how many bytes of the file have been read.

        Raises TooOld, BadInput where the file cannot be read any further, and what the target raises; what was
        acknowledged by then is noted.
        """
        sender = ThreadPoolExecutor(1, "import-sender")
        try:
            self._pump(sender, blocks, read)
        except BaseException:
            self._stop.set()
            raise
        finally:
            sender.shutdown(cancel_futures=True)
            self._save()

    def _pump(self, sender: ThreadPoolExecutor, blocks: Iterator[Block], read: Callable[[], int]) -> None:
        """Parse blocks and hand what they hold to the sender, some at a time."""
        unreadable: BadInput | None = None
        held: list[_Parsed] = []
        while True:
            try:
                block = next(blocks, None)
            except BadInput as error:  # what came before it counts all the same
                unreadable, block = error, None
            if block is None:
                break
            parsed = self._parse(block, read())
            if held and not _fits(parsed, held):
                self._submit(sender, held)
                held = []
            held.append(parsed)
        if held:
            self._submit(sender, held)
        while self._waiting:
            self._settle(self._waiting.popleft())
        self.whole = unreadable is None
        if unreadable is not None:
            raise unreadable

    def _parse(self, block: Block, read: int) -> _Parsed:
        imported = self.reader.read(block.data, self.places + 1)
        self.places += imported.count
        return _Parsed(imported, Position(block.end, self.places), self.reader.memory, read)

    def _submit(self, sender: ThreadPoolExecutor, blocks: list[_Parsed]) -> None:
        """Hand some blocks to the sender, and wait until few enough requests are on their way."""
        metadata = {entry.metric: entry for one in blocks for entry in one.imported.findings.metadata.values()}
        rows, places = _joined([one.imported for one in blocks])
        oldest = int(rows.times.min()) if len(rows) else None
        *others, about = portions(list(metadata.values()))
        for portion in others:
            answer = sender.submit(self._send, part_of(rows, 0, 0), portion)
            self._waiting.append(_Sent(answer, places[:0], None, []))
        for start in range(0, max(len(rows), 1), REQUEST_ROWS):
            stop = start + REQUEST_ROWS
            part = part_of(rows, start, stop)
            answer = sender.submit(self._send, part, about if start == 0 else [])
            done = blocks if stop >= len(rows) else []
            self._waiting.append(_Sent(answer, places[start:stop], oldest, done))
            while len(self._waiting) > _REQUESTS_AHEAD:
                self._settle(self._waiting.popleft())

    # ---- on the sender's thread -------------------------------------------------------------------------------------

    def _patience(self) -> Patience:
        return Patience(self.options.patience, self.progress, self._stop)

    def _send(self, rows: SeriesRows, metadata: list[Metadata]) -> Answer:
        if not len(rows) and not metadata:
            return Answer(0, {}, ())
        try:
            body = encode(rows, metadata)
            return self._patience().send(lambda: self.target.send(body))
        except TooLarge:
            if len(rows) < 2:
                raise
            half = len(rows) // 2
            first = self._send(part_of(rows, 0, half), metadata)
            second = self._send(part_of(rows, half, len(rows)), [])
            return _together(first, second, half)

    # ---- on the calling thread --------------------------------------------------------------------------------------

    def _settle(self, sent: _Sent) -> None:
        """Wait for an answer, and enter it into the account."""
        answer = sent.answer.result()
        tally, unit = self.tally, self.reader.unit
        if sent.oldest is not None:
            tally.oldest = sent.oldest if tally.oldest is None else min(sent.oldest, tally.oldest)
        if answer.refused.get(Reason.TOO_OLD) and not self.options.skip_old:
            example = next(one for one in answer.examples if one.reason == Reason.TOO_OLD)
            raise TooOld(f"{unit} {sent.places[example.row]}: {example.text}")
        tally.stored += answer.stored
        for example in answer.examples:
            tally.example(example.reason, f"{unit} {sent.places[example.row]}: {example.text}")
        for reason, count in answer.refused.items():
            tally.refuse(reason, count)
        for block in sent.finished:
            findings = block.imported.findings
            for reason, count in findings.refused.items():
                tally.refuse(reason.value, count)
            for reason, text in zip(findings.example_reasons, findings.examples, strict=True):
                tally.example(reason.value, text)
        if sent.finished:
            last = sent.finished[-1]
            self._done = Saved(last.end, copy.deepcopy(tally), last.memory)
            self.progress.update(last.read, tally.stored)
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        """Note how far blocks are done, if that is news."""
        if self.state is None or self._done is None:
            return
        try:
            self.state.save(self._done)
        except OSError as error:
            self.progress.say(
                f"how far the import is cannot be noted ({error}); if it ends early, it has to begin anew"
            )
            self.state = None
        self._done, self._saved_at = None, time.monotonic()


def _fits(block: _Parsed, held: Sequence[_Parsed]) -> bool:
    """Whether a block may go with these in one request: it numbers series as they do, and there is room."""
    alike = block.imported.rows.texts is held[0].imported.rows.texts
    rows = sum(len(one.imported.rows) for one in held) + len(block.imported.rows)
    return alike and rows <= REQUEST_ROWS and len(held) < _MAX_HELD


def _joined(blocks: Sequence[Imported]) -> tuple[SeriesRows, Int64s]:
    """The samples of blocks that number series alike, one behind the other, and their places."""
    rows = [block.rows for block in blocks]
    table = SeriesRows(
        rows[0].texts,
        np.concatenate([one.codes for one in rows]),
        np.concatenate([one.times for one in rows]),
        np.concatenate([one.values for one in rows]),
    )
    return table, np.concatenate([block.places for block in blocks])


def _together(first: Answer, second: Answer, rows: int) -> Answer:
    """The answer to a request that was sent in two, the first of which had so many rows."""
    refused = Counter(first.refused)
    refused.update(second.refused)
    later = (replace(example, row=example.row + rows) for example in second.examples)
    return Answer(first.stored + second.stored, dict(refused), (*first.examples, *later))
