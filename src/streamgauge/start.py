"""`streamgauge serve` until the server runs. What can be refused is refused before anything heavy is imported."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streamgauge import logs
from streamgauge.clock import SystemClock
from streamgauge.errors import ConfigError
from streamgauge.event_rules import parse_event_rules
from streamgauge.http.addresses import host_and_port, is_loopback
from streamgauge.retention_rules import parse_rules
from streamgauge.settings import BY_NAME, Config, Settings, misspelt_variables, resolve
from streamgauge.store import failpoints
from streamgauge.store.token_file import has_tokens

LOG = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter's lock once another wants it. With Python's own 5 ms, the event loop is
that late for what is due whenever the committer, or who reads this host's metrics, runs Python."""

LISTENERS = ("listen", "internal_listen", "grpc_listen", "tstorage_listen")
"""Settings that name an address to listen on; "" is none."""

PRELOAD = ("streamgauge.store.snapshot", "streamgauge.wire.read_answers")
"""Imported by query workers before their first query."""


def run_server(config_file: str | None, flags: Mapping[str, Any]) -> int:
    """Run until SIGTERM or SIGINT; the process's exit code. Raises StreamgaugeError for a start that cannot succeed."""
    keep_standard_descriptors()
    failpoints.arm_from_environment(server=True)
    config, settings = read_settings(config_file, flags)
    check_addresses(settings, config)
    logs.configure(settings.log_level, log_form(settings))
    for warning in (*config.warnings, *misspelt_variables(os.environ)):
        LOG.warning("%s", warning)
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(_serve(settings, config, lambda: read_settings(config_file, flags)))
    return 0


async def _serve(settings: Settings, config: Config, reread: Callable[[], tuple[Config, Settings]]) -> None:
    """Take the folder, and let a query worker start beside the import of the server, which takes twice as long."""
    gc.disable()  # what is imported stays: to look through it again and again takes a tenth of a start
    from streamgauge.query.process import WorkerStarter
    from streamgauge.store.lock import acquire

    clock = SystemClock()
    with acquire(Path(settings.data), started=clock.now_ms()) as lock:
        starter = WorkerStarter(PRELOAD)
        try:
            starter.start_ahead(1)
            await asyncio.sleep(0)  # it begins, on a thread
            from streamgauge.main import Server

            gc.freeze()  # not collected first: that would take a tenth of a second and free nothing
            gc.enable()
            await Server(clock, settings, config, reread, starter).run(lock)
        finally:
            await starter.close()


def keep_standard_descriptors() -> None:
    """Open what a service manager may have left closed. The next file of ours would get its number otherwise, and what
    a library prints about a crash would be written into a log segment."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def read_settings(config_file: str | None, flags: Mapping[str, Any]) -> tuple[Config, Settings]:
    """The configuration file and what results from it, the environment and the flags. Raises ConfigError."""
    config = Config()
    if config_file:
        # Imported only here: the model of the file takes a third of the time of a start without one.
        from streamgauge.config import load_config

        config = load_config(Path(config_file), os.environ)
    settings = resolve(flags, os.environ, config.own)
    parse_rules(settings.retention_rules, settings.retention)
    parse_event_rules(settings.event_retention_rules, settings.event_retention)
    if config.relay is not None:
        from streamgauge.relay_config import check_relays

        check_relays(config.relay, settings.insecure)
    return config, settings


def log_form(settings: Settings) -> logs.Form:
    """That of the setting; lines for people take the journal's own form where they go there."""
    if settings.log_format == "json":
        return "json"
    return "journal" if logs.is_journal(sys.stderr, os.environ) else "text"


def check_addresses(settings: Settings, config: Config) -> None:
    """Raises ConfigError for an address that others reach while nobody would be asked who they are, unless that is
    wanted."""
    if settings.insecure or config.auth is not None or has_tokens(Path(settings.data)):
        return
    for name in LISTENERS:
        address = getattr(settings, name)
        if address and not is_loopback(host_and_port(address)[0]):
            raise ConfigError(
                f"{BY_NAME[name].flag} {address} can be reached from other machines, and no authentication is "
                "configured: make a token (`streamgauge token create`), give the configuration a section auth:, listen "
                "on 127.0.0.1, or add --insecure if everybody who reaches this address may read and write"
            )
