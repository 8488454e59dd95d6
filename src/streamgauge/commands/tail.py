"""`streamgauge tail`."""

from __future__ import annotations

import os
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from streamgauge.commands.client import ServerUnreachable, asking
from streamgauge.commands.place import place_of
from streamgauge.commands.server import Access, Server
from streamgauge.commands.tail_lines import event_line, printable, sample_line
from streamgauge.commands.tail_screen import Screen, reading_keys
from streamgauge.errors import Busy, StreamgaugeError
from streamgauge.wire.sse import SseEvent, SseParser

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before a server that went away is asked again; twice as long each time."""
_PIECE_BYTES = 1 << 16
_OPERATORS = "=<>~"


def run_tail(
    words: Sequence[str],
    since: str | None,
    kind: str,
    server: str | None,
    as_json: bool,
    limit: int | None,
    access: Access,
) -> None:
    """Follow until Ctrl-C, or until `limit` messages were shown."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    parameters = [("kind", kind), *(parameter_of(word, kind) for word in words)]
    written = _written(kind, as_json, colour)
    screen = Screen(_write, _say)
    left = limit
    with reading_keys(screen.key):
        for events in follow(_server(server, access), parameters, since, _say, threading.Event().wait):
            shown = [written(event) for event in events[:left]]
            screen.show(shown)
            if left is not None and (left := left - len(shown)) <= 0:
                return


def parameter_of(word: str, kind: str) -> tuple[str, str]:
    """What a word on the command line means to the server: stream=…, text=…, match=…, a condition on a field, which may
    begin with a dot, a selector, or, where it is none of these, a text to be found."""
    name, equals, value = word.partition("=")
    if equals and name in ("stream", "text", "match"):
        return name, value
    if kind == "samples":
        return "match", word
    if word.startswith(".") or any(each in word for each in _OPERATORS):
        return "filter", word.removeprefix(".")
    return "text", word


def follow(
    server: Server,
    parameters: Sequence[tuple[str, str]],
    since: str | None,
    say: Callable[[str], None],
    wait: Callable[[float], object],
) -> Iterator[list[SseEvent]]:
    """Messages as they come, some at a time, through ends of the connection. say: is told what is lost, and of a server
    that went away.

    Raises what the server answers, and ServerUnreachable when it is not there at the first time.
    """
    position, pause, connected = "", 0.0, False
    while True:
        query = [*parameters, *([("since", since)] if since and not position else [])]
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": position} if position else {})}
        try:
            with asking(server, f"/api/v1/tail?{urllib.parse.urlencode(query)}", None, headers) as response:
                connected, pause = True, 0.0
                parser = SseParser()
                while piece := response.read1(_PIECE_BYTES):
                    events = list(parser.feed(piece))
                    position = parser.id or position
                    yield [event for event in events if event.event == "message"]
                    for event in events:
                        _tell(event, say)
            problem = "the server ended the connection"
        except (ServerUnreachable, Busy) as error:
            if not connected:
                raise
            problem = error.message.partition(":")[0]
        if not pause:
            say(f"{problem}; it is asked again until it answers")
        pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
        wait(pause)


def _tell(event: SseEvent, say: Callable[[str], None]) -> None:
    if event.event == "error":
        raise StreamgaugeError(event.json["error"])
    if event.event == "lost":
        lost, unchecked = event.json["lost"], event.json["unchecked"]
        if lost:
            say(f"{lost} lost: they came faster than they were read here")
        if unchecked:
            say(f"{unchecked} not looked at by the server: too many at once, or too large")


def _server(server: str | None, access: Access) -> Server:
    place = place_of(server, None, access=access)
    if isinstance(place, Path):
        raise ServerUnreachable(f"no server holds {place}: start one with `streamgauge serve`, or name one by --server")
    return place


def _written(kind: str, as_json: bool, colour: bool) -> Callable[[SseEvent], str]:
    if as_json:
        return lambda event: event.data
    line: Callable[[Mapping[str, Any], bool], str] = sample_line if kind == "samples" else event_line
    return lambda event: line(event.json, colour)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    click.echo(f"streamgauge: {printable(text)}", err=True)
