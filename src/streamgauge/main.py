"""`streamgauge serve`: wires the parts together, starts them in order and stops them in the other."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgauge import logs
from streamgauge.clock import SystemClock
from streamgauge.config import Config, load_config
from streamgauge.errors import ConfigError
from streamgauge.settings import Settings, resolve
from streamgauge.store import failpoints

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOG = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""How long requests that have begun may go on after SIGTERM."""


def run_server(config_file: str | None, flags: Mapping[str, Any]) -> int:
    """Run until SIGTERM or SIGINT; the process's exit code. Raises StreamgaugeError for a start that cannot succeed."""
    failpoints.arm_from_environment(server=True)
    config, settings = read_settings(config_file, flags)
    address = check_address(settings)
    logs.configure(settings.log_level, settings.log_format)
    for warning in config.warnings:
        LOG.warning("%s", warning)
    server = _Server(SystemClock(), settings, config, lambda: read_settings(config_file, flags))
    asyncio.run(server.run(*address))
    return 0


def read_settings(config_file: str | None, flags: Mapping[str, Any]) -> tuple[Config, Settings]:
    """The configuration file and what results from it, the environment and the flags. Raises ConfigError."""
    config = load_config(Path(config_file), os.environ) if config_file else Config()
    return config, resolve(flags, os.environ, config.own)


def check_address(settings: Settings) -> tuple[str, int]:
    """Host and port to listen on. Raises ConfigError for an address that others reach, unless that is wanted."""
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    if not settings.insecure and not is_loopback(host):
        raise ConfigError(
            f"--listen {settings.listen} can be reached from other machines, and there is no authentication yet: "
            "listen on 127.0.0.1, or add --insecure if everybody who reaches this address may read and write"
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _CurrentApp:
    """The ASGI application in force: a reload puts another in its place, and requests that run keep theirs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
