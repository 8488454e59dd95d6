"""Named points in the code where a test can make the process die, the disk fail or time stand still.

A point costs a dictionary look-up when nothing is armed. Points are armed in a test by `armed`, and in a process that a
test starts by the environment:

    STREAMGAUGE_FAILPOINTS="log.append.before_sync=kill@3;fs.sync=eio@2+;flush.before_blocks=hang:/tmp/held"

    kill        end this process, and the server where this is one of its helpers, as by kill -9
    enospc …    any errno name in small letters: the disk fails with it
    hang:FILE   wait for as long as FILE exists
    delay:MS    wait

`@n` acts at the n-th time the point is reached, `@n+` then and every time after; alone it acts every time.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamgauge.store.disk_errors import write_error

VARIABLE = "STREAMGAUGE_FAILPOINTS"
SERVER_PID_VARIABLE = "STREAMGAUGE_FAILPOINT_PID"

FAILPOINTS = {
    "fs.open": "a file is about to be opened",
    "fs.read": "a piece of a file is about to be read",
    "fs.write": "bytes are about to be written to a file",
    "fs.sync": "a file or directory is about to be synced",
    "fs.rename": "a file or directory is about to be renamed",
    "fs.remove": "a file or directory is about to be removed",
    "fs.link": "a file is about to get a second name",
    "log.create.before_header": "a log segment exists and is empty",
    "log.create.before_sync": "a log segment has its header, unsynced",
    "log.create.after_sync": "a log segment is durable and holds no record",
    "log.append.before_write": "an append has written nothing yet",
    "log.append.before_sync": "an append is written, not synced",
    "log.append.after_sync": "an append is durable, not acknowledged",
    "log.seal.before_truncate": "an append has failed; its bytes may still stand at the end of the segment",
    "log.trim.before_remove": "blocks hold everything of a segment that is about to be removed",
    "log.trim.after_remove": "a segment is gone; more may have to go",
    "log.repair.before_truncate": "the torn end of the last segment is copied aside and still in place",
    "catalog.create.before_rename": "a new catalog is whole under its temporary name",
    "catalog.create.after_rename": "a new catalog has its name",
    "catalog.upgrade.after_copy": "the catalog of an older format is copied and not yet changed",
    "catalog.apply.before_begin": "no transaction is open",
    "catalog.apply.before_commit": "a change is made within a transaction that is not committed",
    "catalog.apply.after_commit": "a change is durable and its caller does not know yet",
    "block.before_rename": "a block is whole under its temporary name",
    "block.after_rename": "a block has its name and no catalog entry",
    "flush.before_blocks": "a flush has chosen its commits and written nothing",
    "flush.after_block_written": "a flush has written a block; more may follow",
    "flush.before_catalog": "all blocks of a flush are written, none is in the catalog",
    "flush.after_catalog": "the catalog has a flush's blocks; head and log still hold the same rows",
    "flush.after_trim": "the log no longer holds what a flush has written",
    "events.merge.before_write": "blocks of events are chosen to be merged and nothing is written",
    "events.merge.after_write": "a merged block of events is written, not in the catalog",
    "compact.before_write": "a compaction has chosen its blocks and written nothing",
    "compact.after_write": "a compacted block is written, not in the catalog",
    "compact.before_catalog": "a compaction is about to swap its blocks in the catalog",
    "compact.after_catalog": "the catalog has the compacted block; its parents are still on disk",
    "compact.after_remove": "the parents of a compacted block are removed",
    "thin.before_write": "a day that is past retention is chosen and its aggregates are not written",
    "thin.after_write": "a block of aggregates is written, not in the catalog",
    "thin.before_catalog": "a block of aggregates is about to take the place of its parents in the catalog",
    "thin.after_catalog": "the catalog has the block of aggregates; its parents are still on disk",
    "thin.after_remove": "the parents of a block of aggregates are removed",
    "delete.before_catalog": "a deletion has found its series; everything visible is in blocks",
    "delete.after_catalog": "the catalog has a deletion's tombstone and its caller does not know yet",
    "clean.after_trim": "the log no longer holds what was deleted; blocks still do",
    "clean.before_write": "a deletion is about to be carried out in a block",
    "clean.after_write": "a block is written anew without what was deleted, and not in the catalog",
    "clean.before_catalog": "a deletion is about to replace or drop its block in the catalog",
    "clean.after_catalog": "the catalog no longer has the block that holds what was deleted; it is still on disk",
    "clean.after_remove": "a block that held what was deleted is removed",
    "clean.before_forget": "a deletion is carried out everywhere; the catalog still has its tombstone",
    "clean.after_forget": "the catalog no longer has the tombstone of a deletion that was carried out",
    "retention.before_catalog": "retention has chosen the blocks to drop",
    "retention.after_catalog": "the catalog no longer has the dropped blocks; they are still on disk",
    "retention.after_remove": "a dropped block is removed",
    "snapshot.after_block": "a snapshot has a block under its temporary name; more may follow",
    "snapshot.before_rename": "a snapshot is whole under its temporary name",
    "snapshot.after_rename": "a snapshot has its name, and who asked for it does not know yet",
    "backup.after_file": "a backup has copied and verified a file; more may follow",
    "backup.before_manifest": "a backup has all its files and no manifest",
    "backup.after_manifest": "a backup's manifest is written",
    "backup.after_prune": "a block that no backup needs is removed; more may have to go",
    "restore.after_block": "a restore has written a block beside its place; more may follow",
    "restore.before_rename": "a restored folder is whole under its temporary name",
}
"""Every point there is, and what is true of the disk when it is reached."""

_SPEC = re.compile(r"(?P<action>\w+)(?::(?P<argument>.*?))?(?:@(?P<first>\d+)(?P<onward>\+)?)?", re.DOTALL)
_HANG_POLL_SECONDS = 0.02


@dataclass
class _Armed:
    """An action and when to take it. `reached` is guarded by `_counting`."""

    action: Callable[[], None]
    first: int  # the first time that counts, from 1
    last: int | None  # None: for ever
    reached: int = 0


_armed: dict[str, _Armed] = {}  # empty in production; set before threads start, or by a test
_counting = threading.Lock()


def hit(name: str) -> None:
    """Say that the point `name` is reached.

    Where a disk error is armed, a point of `fs` raises it as the OSError it would be, and any other point as the
    StorageError that `fs` makes of it.
    """
    assert name in FAILPOINTS, f"failpoint {name} is not in the table"
    if name in _armed:
        _reach(_armed[name])


def _reach(armed: _Armed) -> None:
    with _counting:
        armed.reached += 1
        count = armed.reached
    if count >= armed.first and (armed.last is None or count <= armed.last):
        armed.action()


@contextmanager
def armed(name: str, action: str | Callable[[], None], first: int = 1, last: int | None = None) -> Iterator[None]:
    """Arm one point of this process for the length of a `with`.

    `action` is one of the words above, or a function of the test's own, called in the thread that reaches the point.
    It acts from the `first` to the `last` time, both inclusive, counted from 1.
    """
    assert name in FAILPOINTS, f"failpoint {name} is not in the table"
    assert name not in _armed, f"failpoint {name} is armed already"
    taken = _parse_action(name, *action.partition(":")[::2]) if isinstance(action, str) else action
    _armed[name] = _Armed(taken, first, last)
    try:
        yield
    finally:
        del _armed[name]


def arm_from_environment(server: bool = False) -> None:
    """Arm what the environment names. Each process of ours calls this once, before its threads start.

    The server passes `server=True`: the helper processes it starts then know whom else to kill. Raises ValueError
    for a name or an action that does not exist.
    """
    spec = os.environ.get(VARIABLE, "")
    if spec and server:
        os.environ[SERVER_PID_VARIABLE] = str(os.getpid())
    for item in filter(None, spec.split(";")):
        name, _, what = item.strip().partition("=")
        match = _SPEC.fullmatch(what)
        if name not in FAILPOINTS or match is None:
            raise ValueError(f"{VARIABLE}: {item!r} is not name=action[:argument][@n[+]] of a known failpoint")
        first = int(match["first"] or 1)
        last = first if match["first"] and not match["onward"] else None
        _armed[name] = _Armed(_parse_action(name, match["action"], match["argument"] or ""), first, last)


def _parse_action(name: str, word: str, argument: str) -> Callable[[], None]:
    if word == "kill":
        return _kill
    if word == "hang":
        return lambda: _hang(Path(argument))
    if word == "delay":
        seconds = float(argument) / 1000
        return lambda: time.sleep(seconds)
    number = getattr(errno, word.upper(), None)
    if not isinstance(number, int):
        raise ValueError(f"failpoint action {word!r} is neither kill, hang, delay nor an errno name")
    return lambda: _fail(name, number)


def _kill() -> None:
    """The server first: a helper that dies alone would be noticed and replaced."""
    sigkill = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows os.kill ends the process whatever the signal
    server = os.environ.get(SERVER_PID_VARIABLE)
    if server is not None and int(server) != os.getpid():
        os.kill(int(server), sigkill)
    os.kill(os.getpid(), sigkill)


def _hang(held: Path) -> None:
    while held.exists():
        time.sleep(_HANG_POLL_SECONDS)  # a test instrument, in real time on purpose: it holds a whole process back


def _fail(name: str, number: int) -> None:
    error = OSError(number, f"{os.strerror(number)} (failpoint)")
    raise error if name.startswith("fs.") else write_error(error, f"pass {name}")
