"""`streamgauge import`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from streamgauge.commands.importer.blocks import Block, Position, folder_blocks, line_blocks, request_blocks
from streamgauge.commands.importer.event_run import EventImport, check_member
from streamgauge.commands.importer.formats import AUTO, EVENTS_SQLITE, REMOTE_WRITE, format_of, reader_of
from streamgauge.commands.importer.progress import Progress, beyond_default, summary, too_old
from streamgauge.commands.importer.reference import ReferenceFile
from streamgauge.commands.importer.run import Import, Options, Patience, TooOld
from streamgauge.commands.importer.state import StateFile, Tally, identity_of, state_folder
from streamgauge.commands.importer.stream import STDIN, open_stream
from streamgauge.commands.importer.targets import ServerTarget, Target
from streamgauge.commands.place import place_of
from streamgauge.commands.server import NO_ACCESS, Access
from streamgauge.commands.table import printable
from streamgauge.commands.times import moment
from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput, NotFound
from streamgauge.heap import keep_free_memory
from streamgauge.wire.findings import Reason

_HEAP_BYTES = 64 << 20
_MAPPED_BYTES = 32 << 20
"""What is kept at the end of the heap, and how large an array has a mapping of its own: each block needs as much as the
one before it, and to have that mapped anew takes a third of the time of a block of text."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for all files. place: where they go, in words that tell it from other places."""

    target: Target
    place: str
    form: str
    time: int | None
    restart: bool
    options: Options
    member: str = ""  # in which events without a time get one


@dataclass(frozen=True, slots=True)
class _Opened:
    """One file. size: bytes. read: how many of them have been read."""

    form: str
    size: int | None
    blocks: Callable[[int], Iterator[Block]]
    read: Callable[[], int]


def import_files(
    files: Sequence[str],
    form: str,
    server: str | None,
    data: str | None,
    timestamp: str | None,
    skip_old: bool,
    restart: bool,
    patience: str,
    event_time: str | None = None,
    access: Access = NO_ACCESS,
) -> int:
    """Exit code: 0 when everything was stored, 1 when not. Raises what makes it end before its end."""
    keep_free_memory(_HEAP_BYTES, _MAPPED_BYTES)
    now = time.time_ns() // 1_000_000
    options = Options(skip_old, parse_duration(patience) / 1000)
    at = moment(timestamp, now) if timestamp is not None else None
    for name in files:
        if name != STDIN and not Path(name).exists():
            raise NotFound(f"there is no file {name}")
    tallies: list[Tally] = []
    with _target(server, data, access) as (target, place):
        member = check_member(event_time) if event_time is not None else ""
        job = _Job(target, place, form, at, restart, options, member)
        tallies += [_import_one(job, name) for name in files]
    oldest = min((tally.oldest for tally in tallies if tally.oldest is not None), default=None)
    if not isinstance(target, ServerTarget) and (note := beyond_default(oldest, now)) is not None:
        click.echo(note, err=True)
    return 1 if any(set(tally.refused) - {Reason.EXEMPLAR} or tally.faults for tally in tallies) else 0


def _import_one(job: _Job, name: str) -> Tally:
    """Import one file and say what became of it, however that ends."""
    with _opened(name, job.form) as opened:
        if opened.form == EVENTS_SQLITE:
            return _import_events(job, name, opened.size)
        reader = reader_of(opened.form, job.time)
        state = _state_of(job, name, opened.form)
        saved = state.load() if state is not None and not job.restart else None
        tally, start = (saved.tally, saved.position) if saved else (Tally(), Position())
        progress = Progress(name, opened.size, tally.stored, time.monotonic)
        progress.say(f"{name}: importing as {opened.form} into {job.place}")
        if saved is not None:
            reader.remember(saved.memory)
            progress.say(f"{name}: going on behind {reader.unit} {start.places:,}; begin anew with --restart")
        before = tally.stored
        work = Import(job.target, reader, state, progress, job.options, tally, start.places)
        try:
            work.run(opened.blocks(start.offset), opened.read)
        except TooOld as error:
            raise TooOld(too_old(error.message, tally.oldest, time.time_ns() // 1_000_000)) from None
        except BaseException:
            if state is not None:
                progress.say(f"{name}: ended early; the same command again goes on where it was")
            raise
        finally:
            progress.clear()
            tally.faults = [fault for fault in [reader.end()] if fault is not None and work.whole]
            for line in summary(name, tally, reader.series, before, progress.seconds()):
                click.echo(printable(line))
        if state is not None:
            state.remove()
    return tally


def _import_events(job: _Job, name: str, size: int | None) -> Tally:
    """Import a reference server's file of events."""
    if name == STDIN:
        raise BadInput("a file of SQLite is read from a file, not from standard input")
    state = _state_of(job, name, f"{EVENTS_SQLITE} {job.member}")
    assert state is not None
    saved = None if job.restart else state.load()
    before = saved.tally.stored if saved else 0
    progress = Progress(name, size, before, time.monotonic, what="events")
    progress.say(f"{name}: importing as {EVENTS_SQLITE} into {job.place}")
    if saved is not None:
        progress.say(f"{name}: going on behind row {saved.position.places:,}; begin anew with --restart")
    with ReferenceFile(Path(name)) as file:
        patience = Patience(job.options.patience, progress)
        work = EventImport(file, Path(name).name, job.target, patience, state, progress, job.member)
        try:
            tally = work.run(saved)
        except BaseException:
            progress.say(f"{name}: ended early; the same command again goes on where it was")
            raise
        finally:
            progress.clear()
        click.echo(printable(f"{name}: {tally.stored:,} events of {len(file.streams()):,} streams are stored"))
    if work.timeless and not job.member:
        click.echo(
            f"  {work.timeless:,} of them have no time of their own. With --event-time time they get when the file "
            "says they were inserted; what is stored now stays beside them"
        )
    state.remove()
    return tally


@contextlib.contextmanager
def _opened(name: str, form: str) -> Iterator[_Opened]:
    """Raises NotFound, and BadInput when the format cannot be told."""
    path = Path(name)
    if name != STDIN and path.is_dir():
        if form not in (AUTO, REMOTE_WRITE):
            raise BadInput(f"{name} is a folder; only remote-write requests are imported from one")
        yield _Opened(REMOTE_WRITE, None, lambda start: folder_blocks(path, start), lambda: 0)
        return
    with open_stream(name) as stream:
        found = format_of(stream) if form == AUTO else form
        blocks = request_blocks if found == REMOTE_WRITE else line_blocks
        yield _Opened(found, stream.size, lambda start: blocks(stream, start), lambda: stream.position)


def _state_of(job: _Job, name: str, form: str) -> StateFile | None:
    """Where it is noted how far the import is. None for standard input, which cannot be read a second time."""
    if name == STDIN:
        return None
    path = Path(name).resolve()
    parts = (str(path), job.place, form, str(job.time))
    return StateFile(state_folder(os.environ), identity_of(path), *parts)


@contextlib.contextmanager
def _target(server: str | None, data: str | None, access: Access) -> Iterator[tuple[Target, str]]:
    """Where to import to, and that in words. Raises what `place_of` does, and ServerUnreachable."""
    place = place_of(server, data, may_be_new=True, access=access)
    target: Target
    if isinstance(place, Path):
        from streamgauge.commands.importer.folder_target import FolderTarget  # all of a store, which a server has

        target, words = FolderTarget(place), f"the folder {place.resolve()}"
    else:
        served = ServerTarget(place)
        served.check()
        target, words = served, f"the server at {served.server}"
    with contextlib.closing(target):
        yield target, words
