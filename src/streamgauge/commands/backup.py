"""`streamgauge backup` and `streamgauge restore`."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from streamgauge.backup import place as places
from streamgauge.backup.blocks import BlockGone
from streamgauge.backup.manifest import decode_state
from streamgauge.backup.open import open_place
from streamgauge.backup.place import Place
from streamgauge.backup.prune import Pruned, prune
from streamgauge.backup.restore import choose, refuse_occupied
from streamgauge.backup.restore import restore as restored
from streamgauge.backup.verify import problems
from streamgauge.backup.write import BackupWriter, Made, Options
from streamgauge.clock import SystemClock
from streamgauge.commands.client import ask, server_of
from streamgauge.commands.importer.progress import size_text
from streamgauge.commands.progress import Bar, progress
from streamgauge.commands.server import Access, Server
from streamgauge.commands.table import printable, table
from streamgauge.errors import StorageError, StreamgaugeError
from streamgauge.serve.pins_api import PATH as PINS
from streamgauge.settings import BY_NAME
from streamgauge.store import failpoints, fs, names
from streamgauge.store.folder import require_data_folder
from streamgauge.store.offline import pinned_folder
from streamgauge.store.ports import CatalogState

RENEW_SECONDS = 20.0


def run_backup(
    destination: str, data: str | None, endpoint: str | None, keep: int | None, options: Options, access: Access
) -> None:
    """Make a backup and say what it took. Raises NotFound, BadInput, FolderInUse and StorageError."""
    failpoints.arm_from_environment()
    folder = Path(data or os.environ.get(BY_NAME["data"].variable) or BY_NAME["data"].default)
    require_data_folder(folder)
    place = open_place(destination, endpoint, os.environ)
    places.prepare(place)  # before a lock is put there: it may be somebody else's folder
    with place.alone():
        with progress("copying", 2 if options.verify else 1) as bar:

            def write(state: CatalogState) -> Made:
                return BackupWriter(folder, state, place, options, bar).run(SystemClock().now_ms())

            server = server_of(folder, access)
            if server is None:
                with pinned_folder(folder) as state:
                    made = write(state)
            else:
                made = _online(server, write)
        _tell(place, made, bar)  # now: should what follows fail, this backup is made all the same
        _tell_of_damage(folder)
        if keep is not None:
            _tell_of_pruned(keep, prune(place, keep))


def _online(server: Server, write: Callable[[CatalogState], Made]) -> Made:
    pinned = ask(server, PINS, {})["data"]
    try:
        state = decode_state(pinned["state"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"the server at {server} answers as another version would ({error!r}): restart it") from None
    with _renewed(server, f"{PINS}/{pinned['id']}"):
        try:
            return write(state)
        except BlockGone as error:
            raise StorageError(
                f"{error.message}: the server at {server} has stopped, or did not hear of this backup for a minute. "
                "Run it again; what was copied is not copied again"
            ) from None


@contextmanager
def _renewed(server: Server, path: str) -> Iterator[None]:
    """Keep a pin while the `with` runs. A server that goes away removes nothing, so that is no error by itself."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_SECONDS):
            with suppress(StreamgaugeError):
                ask(server, path, {})

    renewing = threading.Thread(target=renew, name="renewing", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        with suppress(StreamgaugeError):  # it ends by itself
            ask(server, path, method="DELETE")


def _tell(place: Place, made: Made, bar: Bar) -> None:
    click.echo(f"{made.name}: {_count(made.blocks, 'block')}, {size_text(made.size)}, in {printable(place.name)}")
    rate = size_text(round(bar.bytes_copied / max(bar.seconds, 1e-3)))
    click.echo(
        f"  {_count(made.new_blocks, 'new block')}: {size_text(made.copied)} copied, {bar.seconds:.1f} s, {rate}/s"
    )
    if made.linked:
        click.echo(
            f"  {size_text(made.linked)} are hard links: second names for the same bytes, which fail with the same "
            "disk; --copy makes copies"
        )


def _tell_of_pruned(keep: int, pruned: Pruned) -> None:
    click.echo(
        f"kept {_count(keep, 'backup')} at most: {_count(pruned.backups, 'backup')} and "
        f"{_count(pruned.blocks, 'block')} that only they needed ({size_text(pruned.size)}) are removed"
    )


def _tell_of_damage(folder: Path) -> None:
    """What was set aside is in no backup, and whoever made this one should not learn that from a restore."""
    aside = [name for name in fs.list_dir(names.set_aside_dir(folder)) if not name.endswith(".txt")]
    if aside:
        click.echo(
            f"warning: {_count(len(aside), 'damaged thing')} in {printable(str(names.set_aside_dir(folder)))} "
            "can not be backed up; `streamgauge check` names them",
            err=True,
        )


def verify_backups(destination: str, endpoint: str | None, backup: str | None) -> int:
    """Read every file of the backups, or of one; exit code 1 when something is wrong."""
    place = open_place(destination, endpoint, os.environ)
    places.require(place)
    chosen = [choose(place, backup)] if backup else places.backups(place)
    with progress("verifying", 1) as bar:
        found = list(problems(place, chosen, bar))
    for problem in found:
        click.echo(printable(problem))
    what = f"backup {chosen[0]}" if backup else _count(len(chosen), "backup")
    click.echo(
        f"{printable(place.name)}: {what}: {_count(len(found), 'problem') if found else 'good'}", err=bool(found)
    )
    return 1 if found else 0


def list_backups(source: str, endpoint: str | None) -> None:
    """A line for each."""
    place = open_place(source, endpoint, os.environ)
    places.require(place)
    rows = []
    for name in places.backups(place):
        try:
            manifest = places.manifest(place, name)
        except StorageError as error:
            rows.append((name, "", "", "", "", error.message))
            continue
        metas, events = manifest.state.blocks, manifest.state.events.blocks
        newest = _clock(max((meta.max_time for meta in metas), default=None))
        samples, count = sum(meta.samples for meta in metas), sum(meta.events for meta in events)
        blocks = len(metas) + len(events)
        rows.append((name, f"{blocks:,}", f"{samples:,}", f"{count:,}", f"{manifest.size:,}", newest))
    if not rows:
        click.echo(f"there is no backup in {printable(place.name)}", err=True)
        return
    for line in table(
        ("backup", "blocks", "samples", "events", "bytes", "newest sample (UTC)"), rows, numbers=(1, 2, 3, 4)
    ):
        click.echo(line)


def run_restore(source: str, folder: str, endpoint: str | None, backup: str | None) -> None:
    """Make the data folder `folder` of a backup. Raises NotFound, BadInput, FolderInUse and StorageError."""
    failpoints.arm_from_environment()
    target = Path(folder)
    refuse_occupied(target)
    place = open_place(source, endpoint, os.environ)
    name = choose(place, backup)
    manifest = places.manifest(place, name)
    with progress("restoring", 1) as bar:
        restored(place, manifest, target, bar)
    rate = size_text(round(bar.bytes_copied / max(bar.seconds, 1e-3)))
    click.echo(
        f"{printable(folder)}: {name}, {_count(len(manifest.files), 'block')}, {size_text(manifest.size)}, "
        f"{bar.seconds:.1f} s, {rate}/s"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _clock(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "none"
    try:
        moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
    return moment.strftime("%Y-%m-%d %H:%M:%S")
