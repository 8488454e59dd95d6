"""Events and samples as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

_LEVELS = ("level", "severity", "lvl")
_MESSAGES = ("message", "msg", "event")
_COLOURS: Mapping[str, Mapping[str, Any]] = {
    "trace": {"dim": True},
    "debug": {"dim": True},
    "info": {"fg": "green"},
    "notice": {"fg": "green"},
    "warn": {"fg": "yellow"},
    "warning": {"fg": "yellow"},
    "error": {"fg": "red"},
    "err": {"fg": "red"},
    "critical": {"fg": "red", "bold": True},
    "fatal": {"fg": "red", "bold": True},
    "panic": {"fg": "red", "bold": True},
}
_PLAIN_LEVEL: Mapping[str, Any] = {}


def event_line(event: Mapping[str, Any], colour: bool) -> str:
    """Time, level, message, and the other fields of the payload."""
    payload = event["payload"]
    pieces = [_styled(_clock(event["time"]), colour, dim=True)]
    if "payload_bytes" in event:
        pieces.append(f"({event['payload_bytes']} bytes, too large to be shown)")
    elif not isinstance(payload, dict):
        pieces.append(_value(payload))
    else:
        fields = dict(payload)
        if (level := _taken(fields, _LEVELS)) is not None:
            style = _COLOURS.get(level.lower(), _PLAIN_LEVEL)
            pieces.append(_styled(f"{printable(level):<5}", colour, **style))
        if (message := _taken(fields, _MESSAGES)) is not None:
            pieces.append(printable(message))
        pieces += (_styled(f"{name}=", colour, fg="cyan") + value for name, value in _flat(fields, ""))
    return " ".join(pieces)


def sample_line(sample: Mapping[str, Any], colour: bool) -> str:
    """Time, series and value."""
    labels = dict(sample["labels"])
    name = labels.pop("__name__", "")
    pairs = ",".join(f"{each}={json.dumps(value, ensure_ascii=False)}" for each, value in labels.items())
    series = printable(f"{name}{{{pairs}}}" if pairs or not name else name)
    return f"{_styled(_clock(sample['time']), colour, dim=True)} {series} {sample['value']}"


def printable(text: str) -> str:
    """A text on one line, that does nothing to a terminal: what moves the cursor or changes colours is spelled out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _clock(time: str) -> str:
    """To the millisecond, in UTC."""
    return time[:23].replace("T", " ")


def _taken(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of some fields that is a text, taken out."""
    for name in names:
        if isinstance(fields.get(name), str):
            text: str = fields.pop(name)
            return text
    return None


def _flat(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Members of members with their path. A payload is not nested more deeply than the server takes."""
    for name, value in fields.items():
        path = f"{prefix}{printable(name)}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}.")
        else:
            yield path, _value(value)


def _value(value: Any) -> str:
    """A text of one word as it is, everything else as JSON."""
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "='):
        return value
    return printable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _styled(text: str, colour: bool, **style: Any) -> str:
    return click.style(text, **style) if colour and style else text
