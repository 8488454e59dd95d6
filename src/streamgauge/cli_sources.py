"""The commands of programs beside the server, which bring it values. Each imports what it needs when it runs."""

from __future__ import annotations

from typing import Any

import click

from streamgauge.cli_options import Grouped, federate_options


@click.command(short_help="Have a server ask this host for its values.")
@click.option("--server", metavar="HOST:PORT", default="127.0.0.1:3000", show_default=True, help="Where it listens.")
@click.option("--id", "name", metavar="NAME", help="What this host is called. Default: its own name.")
@click.option("--tag", "tags", metavar="KEY:VALUE", multiple=True, help="Of all values. May be repeated.")
@click.option("--collect", "collectors", metavar="NAME", multiple=True, help="Only these. May be repeated.")
@click.option("--interval", type=float, default=0, metavar="SECONDS", help="Collect so often. Default: when asked.")
@click.option("--tls", is_flag=True, help="The server speaks TLS.")
@click.option("--tls-ca", metavar="FILE", help="The same, and whom to trust. Default: whom this system trusts.")
@click.option("--tls-cert", metavar="FILE", help="The certificate to show.")
@click.option("--tls-key", metavar="FILE", help="Its key, where it is not in the same file.")
def relay(
    server: str,
    name: str | None,
    tags: tuple[str, ...],
    collectors: tuple[str, ...],
    interval: float,
    tls: bool,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
) -> None:
    """Stay connected to the relay listener of a server, which asks for cpu, memory, load, disk and network.

    Works with any server that speaks Pulse's relay protocol. A connection that is lost is made again every 5 seconds.
    """
    from streamgauge.commands.relay import TlsOptions, run_relay

    run_relay(server, name, tags, collectors, interval, TlsOptions(tls, tls_ca, tls_cert, tls_key))


@click.command(short_help="Show what a scrape target would give.")
@click.argument("url")
@click.option("--config", type=click.Path(), metavar="FILE", help="Scrape as a job of this configuration does.")
@click.option("--job", metavar="NAME", help="Which job. Default: the first.")
@click.option("--samples", is_flag=True, help="Print every sample as it would be stored.")
@click.option("--protocol", metavar="NAME", help="Ask for this format only, such as OpenMetricsText1.0.0.")
def scrape(url: str, config: str | None, job: str | None, samples: bool, protocol: str | None) -> None:
    """Scrape the target at URL once and show its metrics. No server is needed and nothing is stored."""
    from streamgauge.commands.scrape import run_scrape

    run_scrape(url, config, job, samples, protocol)


@federate_options
@click.command(
    cls=Grouped,
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
