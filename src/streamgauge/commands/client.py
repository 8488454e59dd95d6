"""Talking to a running server, and finding out whether there is one."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamgauge.commands.server import NO_ACCESS, TOKEN_VARIABLE, Access, Server
from streamgauge.errors import BadInput, Busy, ClientError, FolderInUse, Forbidden, StreamgaugeError, TooLarge
from streamgauge.http.addresses import is_loopback
from streamgauge.settings import local_url
from streamgauge.store.lock import Holder, holder

TIMEOUT = 150.0
"""Seconds: longer than a query may take, so that the server's own answer about that comes first."""


class ServerUnreachable(StreamgaugeError):
    pass


def ask(
    server: Server,
    path: str,
    parameters: Mapping[str, str | Sequence[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
    body: bytes | None = None,
) -> Any:
    """The body of a JSON answer, None where it is empty. With `parameters` it is a POST form, with `body` a POST of
    that, without either a GET, unless `method` says otherwise.

    Raises the error that the server's envelope names, or ServerUnreachable.
    """
    data = urllib.parse.urlencode(parameters, doseq=True).encode() if parameters is not None else body
    headers = {"Accept": "application/json", **(headers or {})}
    with asking(server, path, data, headers, method) as response:
        try:
            return json.load(response) if response.status != http.HTTPStatus.NO_CONTENT else None
        except ValueError:
            raise ServerUnreachable(f"what answers at {server} is no streamgauge") from None


@contextmanager
def asking(
    server: Server, path: str, data: bytes | None, headers: Mapping[str, str], method: str | None = None
) -> Iterator[http.client.HTTPResponse]:
    """An answer that is read while it comes. Raises what `ask` raises, also for an answer that breaks off."""
    url = server.url
    request = urllib.request.Request(url + path, data=data, headers=dict(headers), method=method)
    for name, value in server.secrets.items():
        request.add_unredirected_header(name, value)  # where it sends us to is another server
    try:
        with _opener(server).open(request, timeout=TIMEOUT) as response:
            yield response
    except urllib.error.HTTPError as error:
        path = urllib.parse.urlsplit(error.url).path
        raise error_of(error.code, error.reason, path, _body_of(error), error.headers.get("retry-after")) from None
    except http.client.IncompleteRead:
        raise ServerUnreachable(f"the answer of {url} broke off; its log says why") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise untrusted(url, reason) from None
        if isinstance(reason, http.client.RemoteDisconnected) and url.startswith("http://"):
            raise ServerUnreachable(
                f"{url} ends connections without an answer; if it speaks TLS, write https"
            ) from None
        why = (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__).lower()
        raise ServerUnreachable(
            f"no server answers at {url} ({why}): start one with `streamgauge serve`, name another with --server, or "
            "read a folder with --data"
        ) from None


def untrusted(url: str, error: ssl.SSLCertVerificationError) -> ServerUnreachable:
    return ServerUnreachable(
        f"the certificate of {url} is not trusted here ({error.verify_message}); --ca-file names who signs good ones"
    )


def _opener(server: Server) -> urllib.request.OpenerDirector:
    """This machine is never asked through a proxy, whatever the environment says of one."""
    parts = urllib.parse.urlsplit(server.url)
    local = is_loopback(parts.hostname or "")
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})] if local else []
    if parts.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=server.context()))
    return urllib.request.build_opener(*handlers)


def error_of(status: int, reason: str, path: str, body: bytes, retry_after: str | None = None) -> StreamgaugeError:
    """The error that an answer stands for, by its status and the API's envelope."""
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {status} {reason} to {path}: is this the address of a streamgauge?"
    if status == 400:
        return BadInput(message)
    if status == 401:
        return ClientError(f"{message}; give a token with --token-file, or in the environment as {TOKEN_VARIABLE}")
    if status == 403:
        return Forbidden(message)
    if status == 413:
        return TooLarge(message)
    if status in (429, 503):
        return Busy(message, int(retry_after) if retry_after and retry_after.isdecimal() else None)
    return ClientError(message) if status < 500 else StreamgaugeError(message)


def _body_of(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read()
    except (OSError, http.client.HTTPException):
        return b""


def server_of(folder: Path, access: Access = NO_ACCESS) -> Server | None:
    """The server that holds a data folder, None when nothing holds it.

    Raises FolderInUse when what holds it does not listen, such as `streamgauge compact`, and StorageError.
    """
    held = holder(folder)
    if held is None:
        return None
    if not held.address:
        raise FolderInUse(f"{folder} is in use by {who(held)}, which does not listen yet; try again when it does")
    return Server(local_url(held.address, held.tls), key=held.key, access=access)


def who(held: Holder) -> str:
    return f"process {held.pid}" if held.pid else "another process"
