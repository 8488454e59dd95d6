"""Talking to a running server, and finding out whether there is one."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamgauge.errors import BadInput, Busy, ClientError, StreamgaugeError
from streamgauge.settings import DEFAULT_LISTEN
from streamgauge.store.lock import holder

DEFAULT_SERVER = f"http://{DEFAULT_LISTEN}"
DEFAULT_DATA = Path("streamgauge-data")


class ServerUnreachable(StreamgaugeError):
    pass


def ask(server: str, path: str, parameters: Mapping[str, str] | None = None, timeout: float = 150.0) -> Any:
    """The body of a JSON answer. With `parameters` it is a POST form, without a GET.

    Raises the error that the server's envelope names, or ServerUnreachable.
    """
    if not server.startswith(("http://", "https://")):
        raise BadInput(f'"{server}" is not a server\'s URL; write for example {DEFAULT_SERVER}')
    data = urllib.parse.urlencode(parameters).encode() if parameters is not None else None
    request = urllib.request.Request(server.rstrip("/") + path, data=data, headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise _error_of(error) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServerUnreachable(f"no streamgauge answers at {server}: {reason}") from None


def _error_of(error: urllib.error.HTTPError) -> StreamgaugeError:
    try:
        message = str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {error.code} {error.reason}"
    if error.code == 400:
        return BadInput(message)
    if error.code in (429, 503):
        return Busy(message)
    return ClientError(message) if error.code < 500 else StreamgaugeError(message)


def server_of(folder: Path) -> str | None:
    """The URL of the server that holds a data folder, None when none does."""
    held = holder(folder) if folder.is_dir() else None
    return None if held is None else f"http://{held.address}"
