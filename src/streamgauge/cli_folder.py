"""The commands that look after a data folder. Each imports what it needs when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamgauge.cli_options import Folder, InOrder, access_options, endpoint_option, place_options

if TYPE_CHECKING:
    from streamgauge.commands.server import Access


@click.command(
    "import",
    short_help="Import files of samples, or of events.",
    epilog="""\b
FILE is - for standard input, a file, also compressed by gzip or zstd, or a
folder of remote-write requests. Formats:
  openmetrics    OpenMetrics text, times in seconds, as promtool takes it
  prometheus     the Prometheus text format, times in ms
  jsonl          JSON lines as VictoriaMetrics exports them
  remote-write   remote-write requests, each behind its length as a varint
  dump           what promtool tsdb dump prints
  events-sqlite  events, as a SQLite file of the reference server has them
Run again in the same way, an import that was ended goes on where it was.
Exit code 1: something was not stored; the summary says what.
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--server", metavar="URL", help="Server to import to. Also STREAMGAUGE_SERVER.")
@click.option(
    "--data",
    type=Folder(),
    help="Data folder to import to: directly, or through the server that holds it if one does.",
)
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    metavar="FORMAT",
    type=click.Choice(["auto", "openmetrics", "prometheus", "jsonl", "remote-write", "dump", "events-sqlite"]),
    help="Format of all files, below; auto finds it out for each.",
)
@click.option("--timestamp", metavar="T", help="Time of samples that have none; without it they are refused.")
@click.option(
    "--event-time", metavar="NAME", help="Member in which events without a time get when the file says they came."
)
@click.option("--skip-old", is_flag=True, help="Leave out samples older than the server keeps, and go on.")
@click.option("--restart", is_flag=True, help="Begin anew, whatever an earlier run has done.")
@click.option(
    "--patience",
    metavar="DURATION",
    default="10m",
    show_default=True,
    help="How long to wait for a server or a disk that takes nothing.",
)
@access_options
def import_(files: tuple[str, ...], format_: str, **options: Any) -> int:
    """Import samples, or events, from each FILE, into a server without disturbing it, or straight into a data folder.

    Without --server and --data they go to ./streamgauge-data if it is there, through the server that holds it if one
    does; else to http://127.0.0.1:4318.
    """
    from streamgauge.commands.importing import import_files

    return import_files(files, format_, **options)


@click.command()
@click.argument("folder", metavar="DIR", type=Folder())
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows of each cardinality list."
)
@access_options
def inspect(folder: str, as_json: bool, limit: int, access: Access) -> None:
    """Show what a data folder holds: blocks, head, cardinality."""
    from streamgauge.commands.folder import inspect_folder

    inspect_folder(folder, as_json, limit, access)


@click.command(short_help="Verify every invariant of a data folder.")
@click.argument("folder", metavar="DIR", type=Folder())
@access_options
def check(folder: str, access: Access) -> int:
    """Verify every invariant of the store in a data folder. Nothing is changed.

    Prints a line for each thing that does not hold; the exit code is then 1.
    """
    from streamgauge.commands.folder import check_folder

    return check_folder(folder, access)


@click.command(short_help="Write the log into blocks and compact them all.")
@click.argument("folder", metavar="DIR", type=Folder())
def compact(folder: str) -> None:
    """Write the log of a data folder into blocks, and compact these as far as they go.

    Not while a server holds the folder: it does so by itself.
    """
    from streamgauge.commands.folder import compact_folder

    compact_folder(folder)


@click.command(short_help="Back up a data folder, incrementally and verified.")
@click.argument("destination", metavar="DEST")
@click.option("--data", type=Folder(), help="Data folder to back up, beside the server that holds it if one does.")
@endpoint_option
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Afterwards remove all but the N newest backups.")
@click.option("--copy", is_flag=True, help="Copy also where hard links could be made.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
@click.option("--verify-only", is_flag=True, help="Make no backup: read those that are there, and tell what is wrong.")
@click.option("--backup", metavar="NAME", help="With --verify-only: the one backup to read.")
@access_options
def backup(
    destination: str,
    data: str | None,
    endpoint: str | None,
    keep: int | None,
    copy: bool,
    no_verify: bool,
    verify_only: bool,
    backup: str | None,
    access: Access,
) -> int:
    """Make a backup in DEST, a folder or an S3 bucket (s3://BUCKET/PREFIX), of what is stored.

    Only blocks that DEST lacks are copied. The server, if one runs on the folder, goes on.
    """
    from streamgauge.backup.write import Options
    from streamgauge.commands.backup import run_backup, verify_backups

    if verify_only:
        return verify_backups(destination, endpoint, backup)
    if backup is not None:
        raise click.UsageError("--backup goes with --verify-only")
    run_backup(destination, data, endpoint, keep, Options(copy, not no_verify), access)
    return 0


@click.command(short_help="Make a data folder of a backup.")
@click.argument("source", metavar="SRC")
@click.argument("folder", metavar="DIR", type=Folder(), required=False)
@endpoint_option
@click.option("--backup", metavar="NAME", help="Which backup. Default: the newest.")
@click.option("--list", "list_", is_flag=True, help="List the backups in SRC.")
def restore(source: str, folder: str | None, endpoint: str | None, backup: str | None, list_: bool) -> None:
    """Make the data folder DIR, which is not there yet, of a backup in SRC: a folder or a bucket (s3://BUCKET/PREFIX).

    Every checksum is verified. Until all is well there is no DIR.
    """
    from streamgauge.commands.backup import list_backups, run_restore

    if list_:
        list_backups(source, endpoint)
    elif folder is None:
        raise click.UsageError("name the DIR to make, or give --list")
    else:
        run_restore(source, folder, endpoint, backup)


@click.command(
    short_help="Delete samples, or events.",
    epilog="""\b
T is Unix seconds, RFC 3339 or a time before now:
  1767225600, 2026-01-01T00:00:00Z, -5m, now
""",
)
@click.argument("selectors", metavar="SELECTOR...", nargs=-1, required=True)
@click.option("--start", metavar="T", help="First moment of what is deleted. Default: the first there is.")
@click.option("--end", metavar="T", help="Last moment of what is deleted. Default: the last there is.")
@click.option("--where", metavar="CONDITION", help="With the one argument `events`: delete events, not samples.")
@click.option("--server", metavar="URL", help="Server to delete from. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=Folder(), help="Data folder, through the server that holds it if one does.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@access_options
def delete(selectors: tuple[str, ...], where: str | None, **options: Any) -> int:
    """Delete the samples of the series that any SELECTOR selects, such as 'up{job="old"}'; or, with `delete events
    --where CONDITION`, the events that fulfil a condition as SQL has it after WHERE, such as "payload.type = 'log'".

    Says what that is, and asks. Queries do not see it from then on; it is off the disk at once where no server holds
    the folder, else within minutes; events are off it at once. The server must run with --enable-admin-api.

    Without --server and --data, ./streamgauge-data is used if it is there; else http://127.0.0.1:4318.
    """
    if where is not None:
        if selectors != ("events",) or options["start"] or options["end"]:
            raise click.UsageError("--where goes with the one argument `events`, and has the times in it")
        from streamgauge.commands.delete_events import run_delete_events

        return run_delete_events(where, options["server"], options["data"], options["yes"], options["access"])
    from streamgauge.commands.delete import run_delete

    return run_delete(selectors, **options)


@click.group(cls=InOrder, short_help="Make, list and revoke tokens.")
def token() -> None:
    """Make, list and revoke the tokens of a data folder, through the server that holds it if one does.

    From the first token on, the server asks everybody for one. docs/security.md says more.
    """


@token.command("create", short_help="Make a token and show it, once.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["read", "write", "admin"]),
    help="Given again, more.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Bind it to series that have this label.")
@click.option("--expires", metavar="D", help="How long it is good, such as 90d. Default: until it is revoked.")
@place_options
@access_options
def token_create(name: str, **options: Any) -> None:
    """Make a token called NAME, and print it: nobody can tell it later."""
    from streamgauge.commands.token import create

    create(name, **options)


@token.command("list", short_help="List tokens, without their secrets.")
@place_options
@access_options
def token_list(**options: Any) -> None:
    """List the tokens there are."""
    from streamgauge.commands.token import list_all

    list_all(**options)


@token.command("revoke", short_help="Revoke a token.")
@click.argument("name")
@place_options
@access_options
def token_revoke(name: str, **options: Any) -> None:
    """Revoke the token NAME: at once nobody gets in by it any more, and connections that it opened end."""
    from streamgauge.commands.token import revoke

    revoke(name, **options)
