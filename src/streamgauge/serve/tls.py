"""The certificate of the listeners: TLS 1.2 and later, read again when a file changes, without a connection ending."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass

from streamgauge.clock import Clock
from streamgauge.errors import ConfigError

LOG = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
"""Between two looks at the files: a certificate that is renewed has days to get into use."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths. client_ca: "" where clients are not asked for a certificate; required: whether they must have one."""

    certificate: str
    key: str
    client_ca: str = ""
    required: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.certificate, self.key, self.client_ca)))


class Tls:
    """`context` is what new connections get. Used on the event loop."""

    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        """Raises ConfigError for files that are no certificate and key."""
        self.files = files
        self._clock = clock
        self._stamp = self._look()
        self.context = make_context(files)
        self.reloads = 0

    async def run(self) -> None:
        while True:
            await self._clock.sleep(CHECK_SECONDS)
            self.check()

    def check(self) -> None:
        """Read the files if one has changed. What is no good is told in the log, once, and the old ones stay."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp  # from before they are read: what changes meanwhile is looked at next time
        try:
            self.context = make_context(self.files)
        except ConfigError as error:
            LOG.error("the certificate was not read again, the old one stays: %s", error.message)
        else:
            self.reloads += 1
            LOG.info("the certificate was read again")

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """By what a change of the files shows."""
        stamps: list[tuple[int, int, int] | None] = []
        for name in self.files.named:
            try:
                status = os.stat(name)
            except OSError:
                stamps.append(None)
            else:
                stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(stamps)


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.client_ca:
            context.load_verify_locations(files.client_ca)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_mode = ssl.CERT_REQUIRED if files.required else ssl.CERT_OPTIONAL
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{' and '.join(files.named)} cannot be used for TLS: {why}") from None
    return context


def _no_password() -> str:
    """OpenSSL would ask for one at the terminal."""
    raise ValueError("the key is encrypted; give it without a passphrase, in a file that only the server may read")
