"""The command line. Each command imports what it needs when it runs, so that --help and completion are quick."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from streamgauge import __version__
from streamgauge.cli_grpc import poll, tstorage
from streamgauge.errors import BadInput, ConfigError, NotFound, StorageError, StreamgaugeError
from streamgauge.federate.flags import FLAGS, Flag
from streamgauge.settings import GENERAL, TABLE, Setting, written

if TYPE_CHECKING:
    from streamgauge.commands.server import Access

EXIT_CODES = """\b
Exit codes:
  0    all went well
  1    what was asked for failed, or a check found something
  2    wrong usage: a flag, an expression or the configuration
  3    the data folder cannot be used: missing, in use or unreadable
  130  stopped by Ctrl-C
"""
COMPLETION = """\b
Shell completion: add the line of your shell to its start-up file.
  bash  eval "$(_STREAMGAUGE_COMPLETE=bash_source streamgauge)"
  zsh   eval "$(_STREAMGAUGE_COMPLETE=zsh_source streamgauge)"
  fish  _STREAMGAUGE_COMPLETE=fish_source streamgauge | source
"""


class _SettingType(click.ParamType[Any, Any]):
    """A flag's value, parsed as the settings table says."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.metavar
        self._parse = setting.parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except BadInput as error:
            self.fail(error.message, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self.name == "DIR":
            return [CompletionItem(incomplete, type="dir")]
        words = self.name.split("|") if "|" in self.name else []
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class _SettingOption(click.Option):
    """A setting as a flag. In --help it stands under the heading of its group, with its default."""

    def __init__(self, setting: Setting) -> None:
        spelling = setting.flag
        self.group = setting.group
        if setting.metavar == "BOOL":
            super().__init__([f"{spelling}/--no-{spelling[2:]}", setting.name], default=None)
            self._spelling = f"--[no-]{spelling[2:]}"
        else:
            super().__init__([spelling, setting.name], type=_SettingType(setting))
            self._spelling = f"{spelling} {setting.metavar}"
        default = written(setting, setting.default)
        self.help = setting.help + (f"  [{default}]" if default else "")

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self._spelling, self.help or ""


class _FederateOption(click.Option):
    """A flag of the federation client, under the heading of its group, with its default."""

    def __init__(self, flag: Flag) -> None:
        names = [f"--{flag.name}", flag.parameter, *([f"-{flag.short}"] if flag.short else [])]
        default = f"  [{flag.default}]" if flag.default else ""
        self.group = flag.group
        if flag.switch:
            super().__init__(names, is_flag=True, help=flag.help)
        else:
            super().__init__(names, multiple=flag.many, metavar=flag.metavar, help=flag.help + default)


class _Grouped(click.Command):
    """A command whose --help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(param, "group", GENERAL), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _setting_options(command: click.Command) -> click.Command:
    """One option for each setting, in the table's order, before those of click's own."""
    command.params += [_SettingOption(setting) for setting in TABLE]
    return command


def _federate_options(command: click.Command) -> click.Command:
    command.params += [_FederateOption(flag) for flag in FLAGS]
    return command


class _Folder(click.ParamType[Any, Any]):
    """The name of a data folder. Whether it is one is found out when it is used."""

    name = "DIR"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


def _access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What shows a server who asks, and whom to trust; as one argument `access`."""
    options = (
        click.option(
            "--token-file", metavar="FILE", help="File with a token. Also STREAMGAUGE_TOKEN, the token itself."
        ),
        click.option("--ca-file", metavar="FILE", help="Certificates, as PEM, that sign those of good servers."),
        click.option("--cert-file", metavar="FILE", help="Certificate to show the server, as PEM."),
        click.option("--key-file", metavar="FILE", help="Private key of --cert-file, where that does not hold it."),
    )

    @functools.wraps(command)
    def with_access(
        token_file: str | None, ca_file: str | None, cert_file: str | None, key_file: str | None, **values: Any
    ) -> Any:
        from streamgauge.commands.server import Access

        access = Access(token_file or "", ca_file or "", cert_file or "", key_file or "")
        return command(**values, access=access)

    for option in reversed(options):
        with_access = option(with_access)
    return with_access


_endpoint_option = click.option(
    "--endpoint", metavar="URL", help="S3 store that is not Amazon's. Also AWS_ENDPOINT_URL."
)


class _InOrder(click.Group):
    """Lists its commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"{EXIT_CODES}\n\n{COMPLETION}",
)
@click.version_option(__version__, prog_name="streamgauge", message="%(prog)s %(version)s")
def cli() -> None:
    """One server that every kind of telemetry flows into.

    Start with `streamgauge serve` and open http://127.0.0.1:4318/
    """


@_setting_options
@cli.command(
    cls=_Grouped,
    short_help="Run the server.",
    epilog="Each flag is also a setting in the configuration file and, as STREAMGAUGE_RETENTION for --retention, "
    "an environment variable. A flag wins over the environment, which wins over the file.",
)
@click.option(
    "--config", type=click.Path(), metavar="FILE", help="Configuration file: a prometheus.yml, or a superset of one."
)
def serve(config: str | None, **flags: Any) -> int:
    """Run the server until SIGTERM or Ctrl-C, which let requests finish; a second one hurries."""
    from streamgauge.start import run_server

    return run_server(config, flags)


@cli.command(
    short_help="Evaluate a PromQL expression.",
    epilog="""\b
T is Unix seconds, RFC 3339 or a time before now:
  1767225600, 2026-01-01T00:00:00Z, -5m, now
Put -- before an EXPRESSION that begins with a minus.
""",
)
@click.argument("expression")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=_Folder(), help="Data folder to read, through the server that holds it if one does.")
@click.option("--time", "time_", metavar="T", help="Moment of an instant query. Default: now.")
@click.option("--start", metavar="T", help="First moment of a range query. Default: an hour before its end.")
@click.option("--end", metavar="T", help="Last moment of a range query. Default: now.")
@click.option(
    "--step", metavar="D", help="Distance of a range query's points, such as 15s. Default: for about 200 points."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv", "graph"]),
    help="Form of the answer. Default: table, or json where the output is no terminal. graph is a range query.",
)
@_access_options
def query(expression: str, format_: str | None, time_: str | None, **options: Any) -> None:
    """Evaluate the PromQL EXPRESSION on a server, or straight from a data folder that no server holds.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.query import run_query

    run_query(expression, format_, time_, **options)


@cli.command(
    short_help="Answer a SELECT over events and samples.",
    epilog="""\b
Views: events, logs, spans, streams, series, samples, metrics; DESCRIBE events
shows the columns of one. QUERY is - to read it from standard input.
  streamgauge sql "SELECT time, severity, message FROM logs LIMIT 20"
  streamgauge sql "SELECT payload.path, count(*) FROM events GROUP BY 1"
""",
)
@click.argument("query", metavar="QUERY")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=_Folder(), help="Data folder to read, through the server that holds it if one does.")
@click.option(
    "--param", "parameters", multiple=True, metavar="VALUE", help="Value of $1; given again of $2, and so on."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "ndjson", "csv", "arrow", "parquet"]),
    help="Form of the answer. Default: table, or ndjson where the output is no terminal.",
)
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write to FILE.")
@_access_options
def sql(query: str, format_: str | None, **options: Any) -> None:
    """Answer the SELECT that QUERY is, from a server, or straight from a data folder that no server holds.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.sql import run_sql

    run_sql(query, format_, **options)


@cli.command(
    short_help="Write events or samples to a file.",
    epilog="""\b
T is Unix seconds, RFC 3339 or a time before now:
  1767225600, 2026-01-01T00:00:00Z, -5m, now
""",
)
@click.argument("kind", type=click.Choice(["events", "samples"]))
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--where", metavar="CONDITION", help="As SQL has it after WHERE, over the view events, or metrics.")
@click.option("--start", metavar="T", help="First moment: of events, when they were received. Default: the first.")
@click.option("--end", metavar="T", help="Last moment. Default: the last there is.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "ndjson"]),
    help="Default: as FILE ends, .parquet, .csv, .ndjson or .jsonl.",
)
@click.option("--output", type=click.Path(dir_okay=False), required=True, metavar="FILE", help="What to write.")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=_Folder(), help="Data folder to read, through the server that holds it if one does.")
@_access_options
def export(kind: str, selectors: tuple[str, ...], **options: Any) -> None:
    """Write all events, or the samples of the series that any SELECTOR selects, to a FILE, which appears when it is
    whole.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.exporting import run_export

    run_export(kind, selectors, **options)


@cli.command(
    short_help="Follow events or samples as they are stored.",
    epilog="""\b
A FILTER is one of these; all of them must hold:
  level=ERROR          a field of the event: = != < <= > >= ~ !~
  'http.status>=500'   ~ and !~ are RE2, found anywhere in the value
  stream=12            a stream, by its number or name
  text=timeout         what the event's JSON has in it; also timeout alone
  'up{job="api"}'      with --kind samples: a selector of series
Where standard input is a terminal, space pauses and goes on.
""",
)
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--since", metavar="T", help="Begin in the past: a duration such as 5m, or a time.")
@click.option("--kind", type=click.Choice(["events", "samples"]), default="events", show_default=True)
@click.option("--server", metavar="URL", help="Server to follow. Also STREAMGAUGE_SERVER.")
@click.option("--json", "as_json", is_flag=True, help="Lines of JSON, as the server sends them.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after N of them.")
@_access_options
def tail(filters: tuple[str, ...], **options: Any) -> None:
    """Show events as they are stored, a line each, coloured by level; with --kind samples, samples.

    Ends with Ctrl-C. When the server goes away it is asked again until it is back, and nothing is missed. Without
    --server the one that holds ./streamgauge-data is followed if it is there; else http://127.0.0.1:4318.
    """
    from streamgauge.commands.tail import run_tail

    run_tail(filters, **options)


@cli.command(short_help="Show which series there are, and which are new.")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=_Folder(), help="Data folder to read, through the server that holds it if one does.")
@click.option(
    "--by",
    default="metric",
    show_default=True,
    help="What to count for: metric, label (its values), pair (label=value), or names of labels, such as job,instance.",
)
@click.option("--since", metavar="D", default="1h", show_default=True, help="How far back to look for what is new.")
@click.option("--end", metavar="T", help="Moment to look back from. Default: now.")
@click.option(
    "--order",
    type=click.Choice(["series", "active", "created", "ended"]),
    default="created",
    show_default=True,
    help="What to show the largest of.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows of the table.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="Form of the answer. Default: table, or json where the output is no terminal.",
)
@_access_options
def cardinality(selectors: tuple[str, ...], format_: str | None, **options: Any) -> None:
    """Show how many series there are, which grew, since when and from where: of all, or of those that match a SELECTOR.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.cardinality import run_cardinality

    run_cardinality(selectors, format_, **options)


@cli.command(short_help="Have a server ask this host for its values.")
@click.option("--server", metavar="HOST:PORT", default="127.0.0.1:3000", show_default=True, help="Where it listens.")
@click.option("--id", "name", metavar="NAME", help="What this host is called. Default: its own name.")
@click.option("--tag", "tags", metavar="KEY:VALUE", multiple=True, help="Of all values. May be repeated.")
@click.option("--collect", "collectors", metavar="NAME", multiple=True, help="Only these. May be repeated.")
@click.option("--interval", type=float, default=0, metavar="SECONDS", help="Collect so often. Default: when asked.")
def relay(server: str, name: str | None, tags: tuple[str, ...], collectors: tuple[str, ...], interval: float) -> None:
    """Stay connected to the relay listener of a server, which asks for cpu, memory, load, disk and network.

    Works with any server that speaks Pulse's relay protocol. A connection that is lost is made again every 5 seconds.
    """
    from streamgauge.commands.relay import run_relay

    run_relay(server, name, tags, collectors, interval)


cli.add_command(poll)
cli.add_command(tstorage)


@cli.command(short_help="Show what a scrape target would give.")
@click.argument("url")
@click.option("--config", type=click.Path(), metavar="FILE", help="Scrape as a job of this configuration does.")
@click.option("--job", metavar="NAME", help="Which job. Default: the first.")
@click.option("--samples", is_flag=True, help="Print every sample as it would be stored.")
@click.option("--protocol", metavar="NAME", help="Ask for this format only, such as OpenMetricsText1.0.0.")
def scrape(url: str, config: str | None, job: str | None, samples: bool, protocol: str | None) -> None:
    """Scrape the target at URL once and show its metrics. No server is needed and nothing is stored."""
    from streamgauge.commands.scrape import run_scrape

    run_scrape(url, config, job, samples, protocol)


@cli.command(
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
    type=_Folder(),
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
@_access_options
def import_(files: tuple[str, ...], format_: str, **options: Any) -> int:
    """Import samples, or events, from each FILE, into a server without disturbing it, or straight into a data folder.

    Without --server and --data they go to ./streamgauge-data if it is there, through the server that holds it if one
    does; else to http://127.0.0.1:4318.
    """
    from streamgauge.commands.importing import import_files

    return import_files(files, format_, **options)


@cli.command()
@click.argument("folder", metavar="DIR", type=_Folder())
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows of each cardinality list."
)
@_access_options
def inspect(folder: str, as_json: bool, limit: int, access: Access) -> None:
    """Show what a data folder holds: blocks, head, cardinality."""
    from streamgauge.commands.folder import inspect_folder

    inspect_folder(folder, as_json, limit, access)


@cli.command(short_help="Verify every invariant of a data folder.")
@click.argument("folder", metavar="DIR", type=_Folder())
@_access_options
def check(folder: str, access: Access) -> int:
    """Verify every invariant of the store in a data folder. Nothing is changed.

    Prints a line for each thing that does not hold; the exit code is then 1.
    """
    from streamgauge.commands.folder import check_folder

    return check_folder(folder, access)


@cli.command(short_help="Write the log into blocks and compact them all.")
@click.argument("folder", metavar="DIR", type=_Folder())
def compact(folder: str) -> None:
    """Write the log of a data folder into blocks, and compact these as far as they go.

    Not while a server holds the folder: it does so by itself.
    """
    from streamgauge.commands.folder import compact_folder

    compact_folder(folder)


@cli.command(short_help="Back up a data folder, incrementally and verified.")
@click.argument("destination", metavar="DEST")
@click.option("--data", type=_Folder(), help="Data folder to back up, beside the server that holds it if one does.")
@_endpoint_option
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Afterwards remove all but the N newest backups.")
@click.option("--copy", is_flag=True, help="Copy also where hard links could be made.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
@click.option("--verify-only", is_flag=True, help="Make no backup: read those that are there, and tell what is wrong.")
@click.option("--backup", metavar="NAME", help="With --verify-only: the one backup to read.")
@_access_options
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


@cli.command(short_help="Make a data folder of a backup.")
@click.argument("source", metavar="SRC")
@click.argument("folder", metavar="DIR", type=_Folder(), required=False)
@_endpoint_option
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


@cli.command(
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
@click.option("--data", type=_Folder(), help="Data folder, through the server that holds it if one does.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_access_options
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


@_federate_options
@cli.command(
    cls=_Grouped,
    short_help="Push what an isolated Prometheus has to a server.",
    epilog="Flags and defaults are those of telemeter-client. docs/federate.md says more.",
)
@click.option("--config", type=click.Path(), metavar="FILE", help="YAML file whose keys are flags; a flag wins.")
@click.option(
    "--dry-run", is_flag=True, help="Scrape once and show, label by label, what would be sent. Sends nothing."
)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), help="Form of what --dry-run shows.")
def federate(config: str | None, dry_run: bool, format_: str | None, **flags: Any) -> int:
    """Scrape a Prometheus that cannot be reached from outside, anonymise, and push to a server that can.

    What the server cannot take now waits on disk. Ends with SIGTERM or Ctrl-C; SIGHUP reads all files again.
    """
    from streamgauge.commands.federate import run_federate

    return run_federate(config, flags, dry_run, format_)


@cli.group(cls=_InOrder, short_help="Make, list and revoke tokens.")
def token() -> None:
    """Make, list and revoke the tokens of a data folder, through the server that holds it if one does.

    From the first token on, the server asks everybody for one. docs/security.md says more.
    """


def _place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER."),
        click.option("--data", type=_Folder(), help="Data folder. Default: ./streamgauge-data."),
    ):
        command = option(command)
    return command


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
@_place_options
@_access_options
def token_create(name: str, **options: Any) -> None:
    """Make a token called NAME, and print it: nobody can tell it later."""
    from streamgauge.commands.token import create

    create(name, **options)


@token.command("list", short_help="List tokens, without their secrets.")
@_place_options
@_access_options
def token_list(**options: Any) -> None:
    """List the tokens there are."""
    from streamgauge.commands.token import list_all

    list_all(**options)


@token.command("revoke", short_help="Revoke a token.")
@click.argument("name")
@_place_options
@_access_options
def token_revoke(name: str, **options: Any) -> None:
    """Revoke the token NAME: at once nobody gets in by it any more, and connections that it opened end."""
    from streamgauge.commands.token import revoke

    revoke(name, **options)


@cli.command("check-config", short_help="Check a configuration file.")
@click.argument("file", type=click.Path())
def check_config(file: str) -> None:
    """Check a configuration FILE as the server would read it, environment variables included."""
    from streamgauge.commands.config import check_config_file

    check_config_file(file)


def main() -> None:
    """Entry point: errors become one line on stderr and an exit code that means something; see EXIT_CODES."""
    _write_anything()
    try:
        code = cli.main(prog_name="streamgauge", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        code = _complain(_usage(error), error.exit_code)
    except StreamgaugeError as error:
        code = _complain(error.message, exit_code(error))
    except BrokenPipeError:
        code = _nobody_reads()
    except OSError as error:
        code = _complain(str(error), 1)
    sys.exit(code)


def exit_code(error: StreamgaugeError) -> int:
    """The process's exit code for an error; see EXIT_CODES."""
    if isinstance(error, NotFound | StorageError):
        return 3
    if isinstance(error, ConfigError | BadInput):
        return 2
    return 1


def _complain(message: str, code: int) -> int:
    from streamgauge import logs

    # In the journal, why a service did not start is to be found among the errors.
    severity = logs.journal_priority(logging.ERROR) if logs.is_journal(sys.stderr, os.environ) else ""
    click.echo(f"{severity}streamgauge: {' '.join(message.split())}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return error.format_message().rstrip(".") + (f" (see {context.command_path} -h)" if context else "")


def _nobody_reads() -> int:
    """The other end of a pipe has gone, as `| head` does: that is its right, so nothing is said."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _write_anything() -> None:
    """Label values hold any character; a terminal or pipe of another encoding must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
