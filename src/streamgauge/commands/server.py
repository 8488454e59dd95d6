"""A server as a command reaches it: its URL, and what shows it who asks."""

from __future__ import annotations

import os
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgauge.errors import BadInput
from streamgauge.model.token import KEY_HEADER
from streamgauge.settings import DEFAULT_LISTEN, ENVIRONMENT_PREFIX

DEFAULT_SERVER = f"http://{DEFAULT_LISTEN}"
TOKEN_VARIABLE = f"{ENVIRONMENT_PREFIX}TOKEN"


@dataclass(frozen=True, slots=True)
class Access:
    """Files that a command was given: with its token, with whom it trusts, and with a certificate of its own."""

    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


NO_ACCESS = Access()


@dataclass(frozen=True, slots=True)
class Server:
    """url: without a slash at its end. key: of the lock of the folder that it holds, if that is how it was found; it
    is this machine's own then, and its certificate is for others."""

    url: str
    token: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    access: Access = NO_ACCESS

    def __str__(self) -> str:
        return self.url

    @property
    def secrets(self) -> Mapping[str, str]:
        """Headers that are for this server and no other."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {**headers, KEY_HEADER: self.key} if self.key else headers

    def context(self) -> ssl.SSLContext:
        """For https. Raises BadInput for files that cannot be used."""
        access = self.access
        try:
            context = ssl.create_default_context(cafile=access.ca_file or None)
            if access.cert_file:
                context.load_cert_chain(access.cert_file, access.key_file or None, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            named = ", ".join(filter(None, (access.ca_file, access.cert_file, access.key_file)))
            raise BadInput(f"{named} cannot be used for TLS: {_reason(error)}") from None
        if self.key:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def named_server(server: str, access: Access, environment: Mapping[str, str] = os.environ) -> Server:
    """The server that somebody named, with the token of the file or the environment. Raises BadInput."""
    return Server(server_url(server), _token(access, environment), access=access)


def server_url(server: str) -> str:
    """The URL of a server as somebody wrote it, without a slash at its end. Raises BadInput."""
    url = server if "://" in server else f"http://{server}"
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc:
        raise BadInput(f"the URL of a server holds no user and no password; write for example {DEFAULT_SERVER}")
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise BadInput(f'"{server}" is not the URL of a server; write for example {DEFAULT_SERVER}')
    return url.rstrip("/")


def _token(access: Access, environment: Mapping[str, str]) -> str:
    """It never goes into a message, be it as wrong as it may."""
    if access.token_file:
        try:
            with open(access.token_file, encoding="utf-8") as file:
                token, what = file.read(65_536).strip(), access.token_file
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{access.token_file} cannot be read: {_reason(error)}") from None
        if not token:
            raise BadInput(f"{access.token_file} is empty; it should hold a token")
    else:
        token, what = environment.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
    if not token.isascii() or not token.isprintable() or " " in token:
        raise BadInput(f"{what} holds no token: there are characters in it that no token has")
    return token


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a passphrase")
