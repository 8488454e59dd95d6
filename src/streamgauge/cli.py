"""The command line. Each command imports what it needs when it runs, so that --help and completion are quick."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any

import click

from streamgauge import __version__
from streamgauge.cli_ask import cardinality, export, query, sql, tail
from streamgauge.cli_folder import backup, check, compact, delete, import_, inspect, restore, token
from streamgauge.cli_grpc import poll, tstorage
from streamgauge.cli_options import Grouped, InOrder, setting_options
from streamgauge.cli_sources import federate, relay, scrape
from streamgauge.errors import BadInput, ConfigError, NotFound, StorageError, StreamgaugeError

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


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"{EXIT_CODES}\n\n{COMPLETION}",
)
@click.version_option(__version__, prog_name="streamgauge", message="%(prog)s %(version)s")
def cli() -> None:
    """One server that every kind of telemetry flows into.

    Start with `streamgauge serve` and open http://127.0.0.1:4318/
    """


@setting_options
@cli.command(
    cls=Grouped,
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


@click.command("check-config", short_help="Check a configuration file.")
@click.argument("file", type=click.Path())
def check_config(file: str) -> None:
    """Check a configuration FILE as the server would read it, environment variables included."""
    from streamgauge.commands.config import check_config_file

    check_config_file(file)


for command in (
    *(query, sql, export, tail, cardinality),
    *(relay, poll, tstorage, scrape),
    *(import_, inspect, check, compact, backup, restore, delete),
    *(federate, token, check_config),
):
    cli.add_command(command)


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
