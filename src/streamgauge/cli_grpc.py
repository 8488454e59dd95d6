"""The commands that speak gRPC, `poll` and `tstorage`. Each imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

READER, STORE, PORT = "localhost:50052", "localhost:50051", 50051


def _access(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that show a server who asks, and whom to trust."""
    for option in (
        click.option("--ca-file", metavar="FILE", help="Speak TLS, and trust what these certificates, as PEM, sign."),
        click.option(
            "--token-file", metavar="FILE", help="File with a token. Also STREAMGAUGE_TOKEN, the token itself."
        ),
    ):
        command = option(command)
    return command


@click.command(short_help="Relay what a data reader has to a gRPC store.")
@click.option(
    "-i", "--telemetry_addr", "reader", metavar="HOST:PORT", default=READER, show_default=True, help="The data reader."
)
@click.option(
    "-o",
    "--storage_addr",
    "store",
    metavar="HOST:PORT",
    default=STORE,
    show_default=True,
    help="The store, a TStorage.",
)
@click.option("--interval", metavar="DURATION", default="1m", show_default=True, help="Between two polls.")
@click.option("--timeout", metavar="DURATION", help="Of a poll. Default: a tenth of the interval, at least 1s.")
@click.option("--reader-ca-file", metavar="FILE", help="Speak TLS with the reader, and trust what these sign.")
@_access
def poll(**options: Any) -> int:
    """Ask a data reader for its values at each multiple of the interval, and hand them to a store as they are, until
    SIGTERM or Ctrl-C. Whatever goes wrong is told, and tried again at the next.

    A server polls by itself what its configuration names under grpc_poll_configs.
    """
    from streamgauge.commands.poll import run_poll

    return run_poll(**options)


@click.group(short_help="Write to a gRPC store, or read from it.")
def tstorage() -> None:
    """Write rows to, and read points from, a store that speaks TStorage: this server's, or another's.

    Rows have the label Source=Command, and those without it are not found, unless --label says otherwise.
    """


def _series(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command of the group has."""
    for option in (
        click.option("-m", "--metric", required=True, metavar="NAME", help="The metric."),
        click.option(
            "--label",
            "labels",
            multiple=True,
            metavar="NAME=VALUE",
            help="In place of Source=Command. May be repeated.",
        ),
        click.option(
            "-p", "--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True, help="The store's."
        ),
        click.option("--address", metavar="HOST:PORT", help="The store, where it is not on this machine."),
    ):
        command = option(command)
    return _access(command)


@tstorage.command("insert_row")
@_series
@click.option("-v", "--value", type=float, required=True, metavar="NUMBER")
@click.option("-t", "--timestamp", required=True, metavar="T", help="Unix seconds, RFC 3339, now, or -5m.")
def insert_row(**options: Any) -> None:
    """Store one row."""
    from streamgauge.commands.tstorage import run_insert

    run_insert(values=(options.pop("value"),), timestamps=(options.pop("timestamp"),), stream=False, **options)


@tstorage.command("insert_rows")
@_series
@click.option("-v", "--value", "values", type=float, required=True, multiple=True, metavar="NUMBER")
@click.option(
    "-t", "--timestamp", "timestamps", required=True, multiple=True, metavar="T", help="As for insert_row; one a value."
)
def insert_rows(**options: Any) -> None:
    """Store rows in a stream: -v and -t may be repeated, as often as each other."""
    from streamgauge.commands.tstorage import run_insert

    run_insert(stream=True, **options)


@tstorage.command("select")
@_series
@click.option("-s", "--start", required=True, metavar="T", help="First moment: as for insert_row.")
@click.option("-e", "--end", required=True, metavar="T", help="The moment before which it ends.")
def select(**options: Any) -> None:
    """Print time, in Unix seconds, and value of each point, ascending."""
    from streamgauge.commands.tstorage import run_select

    run_select(**options)
