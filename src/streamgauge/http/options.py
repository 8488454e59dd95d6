"""How to reach something over HTTP: what `basic_auth`, `tls_config` and their like in prometheus.yml come to.

Files are read when they are needed, so that a secret that is renewed is used at once.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streamgauge import __version__
from streamgauge.errors import ConfigError

USER_AGENT = f"streamgauge/{__version__}"


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that is given, or in a file; "" when neither."""

    text: str = field(default="", repr=False)
    file: str = ""

    def read(self) -> str:
        """Raises ConfigError for a file that cannot be read."""
        if not self.file:
            return self.text
        try:
            return Path(self.file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.file} cannot be read: {_reason(error)}") from None

    def __bool__(self) -> bool:
        return bool(self.text or self.file)


@dataclass(frozen=True, slots=True)
class Tls:
    """system_roots: trusted also where `ca` is given; without it they always are."""

    ca: Secret = Secret()
    cert: Secret = Secret()
    key: Secret = Secret()
    server_name: str = ""
    verify: bool = True
    oldest: str = ""  # TLS10 … TLS13
    newest: str = ""
    system_roots: bool = False


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """headers: further ones, by name; each may have several values. connect_seconds: for looking a name up, connecting
    and TLS, within what the caller gives the whole; 0 for no limit of their own. proxies: go through the proxy that the
    environment names."""

    user: Secret = Secret()
    password: Secret = Secret()
    scheme: str = ""  # of `credentials`
    credentials: Secret = Secret()
    tls: Tls = Tls()
    headers: tuple[tuple[str, Secret], ...] = ()
    follow_redirects: bool = True
    connect_seconds: float = 0.0
    proxies: bool = False

    @property
    def fixed(self) -> bool:
        """Whether requests are the same each time: nothing that they need is read from a file or the environment."""
        return not self.proxies and not any(secret.file for secret in self.secrets)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What requests are made with; that of TLS is apart."""
        return (self.user, self.password, self.credentials, *(value for _, value in self.headers))

    def authorization(self) -> str:
        """The value of the Authorization header, "" for none. Raises ConfigError."""
        if self.user or self.password:
            return basic(self.user.read(), self.password.read())
        if self.credentials:
            return f"{self.scheme} {self.credentials.read()}"
        return ""


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Of OAuth 2. params: further ones of the request for a token."""

    client_id: str
    client_secret: Secret
    token_url: str
    scopes: tuple[str, ...] = ()
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: Tls = Tls()


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


class TlsContexts:
    """The TLS context of some options; made anew when one of the files has changed."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._made: tuple[tuple[float, ...], ssl.SSLContext] | None = None

    def get(self) -> ssl.SSLContext:
        """Raises ConfigError for what is no certificate or key."""
        tls = self._tls
        try:
            stamps = tuple(os.stat(s.file).st_mtime for s in (tls.ca, tls.cert, tls.key) if s.file)
            if self._made is None or self._made[0] != stamps:
                self._made = (stamps, _context(tls))
        except OSError as error:
            raise ConfigError(f"tls_config: {error.filename or ''}: {_reason(error)}") from None
        return self._made[1]


def _context(tls: Tls) -> ssl.SSLContext:
    """ssl.SSLError is an OSError."""
    context = ssl.create_default_context(cadata=tls.ca.read() if tls.ca else None)
    if tls.ca and tls.system_roots:
        context.load_default_certs()
    if tls.ca:
        # A certificate that is trusted by name is enough, though no root has signed it, as in Go.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        with _as_file(tls.cert) as cert, _as_file(tls.key) as key:
            context.load_cert_chain(cert, key)
    if tls.oldest:
        context.minimum_version = VERSIONS[tls.oldest]
    if tls.newest:
        context.maximum_version = VERSIONS[tls.newest]
    return context


@contextmanager
def _as_file(secret: Secret) -> Iterator[str]:
    """A secret as a path, which is all that the ssl module reads keys from."""
    if secret.file:
        yield secret.file
        return
    handle, made = tempfile.mkstemp()  # only this user may read it
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret.text)
        yield made
    finally:
        os.unlink(made)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
