"""The command line. Each command imports what it needs when it runs, so that --help and completion are quick."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from streamgauge import __version__
from streamgauge.errors import BadInput, ConfigError, FolderInUse, StorageError, StreamgaugeError
from streamgauge.settings import TABLE, Setting

EXIT_CODES = """\b
Exit codes:
  0  all went well
  1  what was asked for failed, or a check found something
  2  wrong usage: a flag, an expression or the configuration
  3  the data folder is in use, or the disk failed
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


def _setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each setting, in the table's order."""
    for setting in reversed(TABLE):
        if setting.metavar == "BOOL":
            spelling = f"{setting.flag}/--no-{setting.name.replace('_', '-')}"
            option = click.option(spelling, setting.name, default=None, help=setting.help)
        else:
            option = click.option(
                setting.flag, setting.name, type=_SettingType(setting), metavar=setting.metavar, help=setting.help
            )
        command = option(command)
    return command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES + '\n\nShell completion: eval "$(_STREAMGAUGE_COMPLETE=bash_source streamgauge)" (or zsh, fish).',
)
@click.version_option(__version__, prog_name="streamgauge")
def cli() -> None:
    """One server that every kind of telemetry flows into.

    Start with `streamgauge serve`, then open http://127.0.0.1:4318/.
    """


@cli.command()
@click.option(
    "--config", type=click.Path(dir_okay=False), help="Configuration file: a prometheus.yml, or a superset of one."
)
@_setting_options
def serve(config: str | None, **flags: Any) -> None:
    """Run the server."""
    from streamgauge.main import run_server

    raise SystemExit(run_server(config, flags))


@cli.command()
@click.argument("expression")
@click.option("--server", metavar="URL", envvar="STREAMGAUGE_SERVER", help="Server to ask.")
@click.option("--data", metavar="DIR", help="Folder to read directly, when no server holds it.")
@click.option(
    "--time", "time_", metavar="T", help="Moment of an instant query: Unix seconds, RFC 3339 or -5m. Default: now."
)
@click.option(
    "--start", metavar="T", help="First moment of a range query. Default with --end or --step: an hour before the end."
)
@click.option("--end", metavar="T", help="Last moment of a range query. Default: now.")
@click.option("--step", metavar="D", help="Distance of a range query's points, such as 15s. Default: about 200 points.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv", "graph"]),
    help="How to show the answer. Default: table, or json where the output is no terminal.",
)
def query(expression: str, format_: str | None, time_: str | None, **options: Any) -> None:
    """Evaluate a PromQL EXPRESSION, on a server or straight from a data folder.

    Without --server and --data, ./streamgauge-data is read (through its server, if one is running), else the server
    at http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.query import run_query

    run_query(expression, format_, time_, **options)


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--limit", default=10, show_default=True, help="Rows of each cardinality list.")
def inspect(folder: str, as_json: bool, limit: int) -> None:
    """Show what a data folder holds: blocks, head, cardinality."""
    from streamgauge.commands.folder import inspect_folder

    inspect_folder(folder, as_json, limit)


@cli.command()
@click.argument("folder", metavar="DIR")
def check(folder: str) -> None:
    """Verify every invariant of the store in a data folder. Exit code 1 when something is wrong."""
    from streamgauge.commands.folder import check_folder

    raise SystemExit(check_folder(folder))


@cli.command()
@click.argument("folder", metavar="DIR")
def compact(folder: str) -> None:
    """Write the log of a data folder into blocks and compact them as far as they go. The server must be stopped."""
    from streamgauge.commands.folder import compact_folder

    compact_folder(folder)


@cli.command("check-config")
@click.argument("file", type=click.Path(dir_okay=False))
def check_config(file: str) -> None:
    """Check a configuration FILE as the server would read it."""
    from streamgauge.commands.config import check_config_file

    check_config_file(file)


def main() -> None:
    """Entry point: errors of ours become one line on stderr and an exit code that means something."""
    try:
        cli.main(prog_name="streamgauge", standalone_mode=False)
    except click.exceptions.Abort:
        raise SystemExit(130) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except StreamgaugeError as error:
        click.echo(f"streamgauge: {error.message}", err=True)
        raise SystemExit(exit_code(error)) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


def exit_code(error: StreamgaugeError) -> int:
    """The process's exit code for an error; see EXIT_CODES."""
    if isinstance(error, FolderInUse | StorageError):
        return 3
    if isinstance(error, ConfigError | BadInput):
        return 2
    return 1
