"""`streamgauge federate`: push what a Prometheus has to a server, or show what would be pushed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from streamgauge import logs
from streamgauge.clock import SystemClock
from streamgauge.commands.federate_report import print_report
from streamgauge.errors import BadInput, ConfigError, ListenFailed, StorageError
from streamgauge.federate.buffer import Buffer, DiskBuffer, LatestBuffer
from streamgauge.federate.config import DEFAULT_LISTEN, FederateConfig, make_config
from streamgauge.federate.config_file import read_values
from streamgauge.federate.flags import FLAGS
from streamgauge.federate.listener import Listener
from streamgauge.federate.report import make_report
from streamgauge.federate.source import Source
from streamgauge.federate.worker import Worker
from streamgauge.http.client import Resolver

LOG = logging.getLogger(__name__)


def run_federate(config_file: str | None, flags: Mapping[str, Any], dry_run: bool, form: str | None) -> int:
    """The process's exit code. Raises StreamgaugeError for a start that cannot succeed."""
    given = given_flags(flags)
    if dry_run:
        given["to-token"] = ["not asked for"]  # which may be in a file that nobody has made yet

    def read() -> FederateConfig:
        values = {} if config_file is None else read_values(Path(config_file))
        return make_config({**values, **given})

    if form is not None and not dry_run:
        raise click.UsageError("--format goes with --dry-run")
    config = read()
    logs.configure(config.log_level, "journal" if logs.is_journal(sys.stderr, os.environ) else "text")
    if dry_run:
        print_report(*asyncio.run(_look(config)), form or "text")
        return 0
    for warning in config.warnings:
        LOG.warning("%s", warning)
    asyncio.run(_run(config, read))
    return 0


def given_flags(flags: Mapping[str, Any]) -> dict[str, list[str]]:
    """The flags that were given, by the names that they have in the file."""
    given: dict[str, list[str]] = {}
    for flag in FLAGS:
        value = flags.get(flag.parameter)
        if isinstance(value, str):
            given[flag.name] = [value]
        elif value:
            given[flag.name] = ["true"] if flag.switch else list(value)
    return given


async def _look(config: FederateConfig) -> tuple[Any, FederateConfig]:
    """One scrape, and what would be pushed of it."""
    resolver = Resolver()
    try:
        families, size = await Source(config, resolver, Counter()).scrape()
    finally:
        resolver.close()
    done = config.transforms.apply(families, SystemClock().now_ms())
    return make_report(done, size, config.transforms, (family.name for family in families)), config


async def _run(config: FederateConfig, read: Callable[[], FederateConfig]) -> None:
    buffer = open_buffer(config)
    try:
        worker = Worker(config, buffer, SystemClock())
        reload = _reloading(worker, config, read)
        listening = await _listen(config, Listener(worker, reload))
        LOG.info("federating from %s to %s, listening on %s", config.source, config.upload, listening or "nothing")
        await _until_stopped(worker, reload)
    finally:
        buffer.close()


def open_buffer(config: FederateConfig) -> Buffer:
    """That of the configuration; in memory where the usual folder cannot be used. Raises StorageError for one that was
    named and cannot be used."""
    if config.buffer is None:
        return LatestBuffer()
    folder = Path(config.buffer) if config.buffer else usual_folder(config)
    try:
        return DiskBuffer(folder, config.buffer_bytes)
    except StorageError as error:
        if config.buffer:
            raise
        LOG.warning("an outage will lose samples: %s", error.message)
        return LatestBuffer()


def usual_folder(config: FederateConfig) -> Path:
    """One for each Prometheus and server, below where programs of this user keep their state."""
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    ends = "\n".join((config.source, config.authorize, config.upload))
    return home / "streamgauge" / "federate" / hashlib.sha256(ends.encode()).hexdigest()[:16]


def _reloading(worker: Worker, first: FederateConfig, read: Callable[[], FederateConfig]) -> Callable[[], None]:
    def reload() -> None:
        try:
            config = read()
        except (ConfigError, BadInput) as error:
            worker.metrics.reload_failures += 1
            LOG.error("the configuration stays as it was: %s", error.message)
            raise
        for what in ("listen", "buffer", "buffer_bytes", "log_level"):
            if getattr(config, what) != getattr(first, what):
                LOG.warning("--%s stays as it was until the next start", what.replace("_", "-"))
        worker.reconfigure(config)
        LOG.info("the configuration was read again")

    return reload


async def _listen(config: FederateConfig, listener: Listener) -> str:
    """Where it listens now, "" for nowhere. Raises ListenFailed; for the usual address that is a warning."""
    if not config.listen:
        return ""
    try:
        server = await listener.start(config.listen)
    except ListenFailed as error:
        if config.listen != DEFAULT_LISTEN:
            raise
        LOG.warning("%s; --listen names another address", error.message)
        return ""
    host, port = server.sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _until_stopped(worker: Worker, reload: Callable[[], None]) -> None:
    """Run until SIGTERM or SIGINT. SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(worker.run())

    def reload_quietly() -> None:
        with suppress(ConfigError, BadInput):
            reload()

    actions: dict[str, Callable[[], object]] = {
        "SIGTERM": running.cancel,
        "SIGINT": running.cancel,
        "SIGHUP": reload_quietly,
    }
    for name, action in actions.items():
        number = getattr(signal, name, None)
        if number is not None:
            with suppress(NotImplementedError):  # Windows, where Ctrl-C raises KeyboardInterrupt
                loop.add_signal_handler(number, action)
    with suppress(asyncio.CancelledError):
        await running
    LOG.info("stopped")
