"""`streamgauge token`."""

from __future__ import annotations

import datetime
import os
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from streamgauge.auth.tokens import added, new_token, without
from streamgauge.commands.client import ask, server_of
from streamgauge.commands.place import SERVER_VARIABLE
from streamgauge.commands.server import Access, Server, named_server
from streamgauge.commands.table import printable, table
from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput
from streamgauge.model.token import StoredToken
from streamgauge.serve.tokens_api import PATH, described, parse_label
from streamgauge.settings import BY_NAME
from streamgauge.store.lock import acquire
from streamgauge.store.token_file import read_tokens, write_tokens


def create(
    name: str,
    scopes: Sequence[str],
    labels: Sequence[str],
    expires: str | None,
    server: str | None,
    data: str | None,
    access: Access,
) -> None:
    """Make one, and print it alone on standard output. Raises BadInput, FolderInUse and StorageError."""
    now = time.time_ns() // 1_000_000
    ends = None if expires is None else now + _duration(expires)
    bound = [parse_label(text) for text in labels]
    place = _place(server, data, access)
    first = not _tokens(place)
    if isinstance(place, Server):
        form: dict[str, str | Sequence[str]] = {"name": name, "scope": list(scopes), "label": list(labels)}
        if ends is not None:
            form["expires"] = f"{ends / 1000:.3f}"
        text = str(ask(place, PATH, form)["data"]["token"])
    else:
        text, token = new_token(name, scopes, bound, now, ends)
        _change(place, lambda tokens: added(tokens, token))
    click.echo(text)
    click.echo(f"This is the token {name}. It is shown this once: what is kept cannot tell it again.", err=True)
    if first:
        click.echo("There was none before: from now on the server asks everybody for one.", err=True)


def list_all(server: str | None, data: str | None, access: Access) -> None:
    """A line for each."""
    place = _place(server, data, access)
    tokens = _tokens(place)
    if not tokens:
        click.echo("there is no token", err=True)
        return
    for line in table(
        ("name", "id", "scopes", "labels", "created (UTC)", "expires (UTC)"), [_row(token) for token in tokens]
    ):
        click.echo(line)


def revoke(name: str, server: str | None, data: str | None, access: Access) -> None:
    """Raises NotFound, FolderInUse and StorageError."""
    place = _place(server, data, access)
    last = [token["name"] for token in _tokens(place)] == [name]
    if isinstance(place, Server):
        ask(place, f"{PATH}/{urllib.parse.quote(name, safe='')}", method="DELETE")
    else:
        _change(place, lambda tokens: without(tokens, name))
    click.echo(f"the token {printable(name)} is revoked")
    if last:
        click.echo(
            "There is none left, and everybody is still asked for one; docs/security.md has how to end that.", err=True
        )


def _place(server: str | None, data: str | None, access: Access) -> Server | Path:
    """A server that is named, or the folder, which need not be there yet, or whoever holds it."""
    if server is not None and data is not None:
        raise click.UsageError("give --server or --data, not both")
    if data is None and (named := server or os.environ.get(SERVER_VARIABLE)):
        return named_server(named, access)
    folder = Path(data or os.environ.get(BY_NAME["data"].variable) or BY_NAME["data"].default)
    return server_of(folder, access) or folder


def _tokens(place: Server | Path) -> Sequence[Mapping[str, Any]]:
    """As the API describes them."""
    if isinstance(place, Server):
        found: Sequence[Mapping[str, Any]] = ask(place, PATH)["data"]
        return found
    return [described(token) for token in read_tokens(place) or ()]


def _change(folder: Path, change: Callable[[Sequence[StoredToken]], Sequence[StoredToken]]) -> None:
    with acquire(folder):
        write_tokens(folder, change(read_tokens(folder) or ()))


def _duration(text: str) -> int:
    duration = parse_duration(text)
    if duration <= 0:
        raise BadInput("--expires must be longer than 0")
    return duration


def _row(token: Mapping[str, Any]) -> tuple[str, ...]:
    labels = ",".join(f"{name}={value}" for name, value in token["labels"].items())
    ends = _clock(token["expires"]) if token["expires"] is not None else "never"
    if token["expires"] is not None and token["expires"] <= time.time():
        ends += " (expired)"
    return (token["name"], token["id"], ",".join(token["scopes"]), labels, _clock(token["created"]), ends)


def _clock(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
