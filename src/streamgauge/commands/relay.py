"""`streamgauge relay`: have a server ask this host for its values."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

import click

from streamgauge.client.relay import Relay, RelayInfo
from streamgauge.commands.relay_host import COLLECTORS
from streamgauge.errors import BadInput

CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """wanted: whether to speak it. ca: a file with whom to trust; cert, key: what is shown."""

    wanted: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """Raises BadInput for files that are none."""
        if not (self.wanted or self.ca or self.cert or self.key):
            return None
        if self.key and not self.cert:
            raise BadInput("--tls-key goes with --tls-cert")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise BadInput(f"the certificates cannot be used: {error.strerror or error}") from None
        return context


def run_relay(
    server: str,
    name: str | None,
    tags: Sequence[str],
    collectors: Sequence[str],
    interval: float,
    tls: TlsOptions,
) -> None:
    """Until SIGINT or SIGTERM. Says when the connection comes and goes. Raises BadInput."""
    divided = dict(_tag(text) for text in tags)
    for each in collectors:
        if each not in COLLECTORS:
            raise BadInput(f'"{each}" is not one of {", ".join(COLLECTORS)}')
    with Relay(name or socket.gethostname(), server, tls=tls.context()) as relay:
        for each in collectors or COLLECTORS:
            relay.add_set(each, COLLECTORS[each], divided, interval or None)

        def stop(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, stop)
        with contextlib.suppress(KeyboardInterrupt):
            _watch(relay)


def _watch(relay: Relay) -> None:
    said = ""
    while not relay.wait(CHECK_SECONDS if said else CHECK_SECONDS / 20):
        if (words := _state(relay.info())) != said:
            click.echo(words, err=True)
            said = words


def _state(info: RelayInfo) -> str:
    if info.connected:
        return f"{info.address} asks {info.name} for {', '.join(info.collectors)}"
    return f"not connected to {info.address}: {info.error}" if info.error else ""


def _tag(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon or not key or not value:
        raise BadInput(f'"{text}" is no tag; write KEY:VALUE')
    return key, value
