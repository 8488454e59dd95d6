"""The canonical spelling of a series: one byte string per set of labels.

    key = metric name, FF, then for each other label in byte order of its name: name, FF, value, FF

Names and values are UTF-8, where the byte FF cannot occur, so the spelling is unambiguous; sorting keys sorts series
by (metric name, labels). A label with an empty value is the same as no label and is never part of a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamgauge.errors import BadInput

NAME = b"__name__"
SEPARATOR = b"\xff"

MAX_LABELS = 256
"""Labels of one series. Prometheus has no limit by default; real series have below 40."""
MAX_LABEL_NAME_BYTES = 1024
MAX_LABEL_VALUE_BYTES = 65_536
"""Longer values are payloads, not labels; they would live in the index for as long as the series does."""
MAX_SERIES_BYTES = 131_072
"""All names and values of one series. A wire format that refers to symbols can spell 16 MB of labels in a kilobyte."""


def series_key(labels: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key of a set of (name, value) pairs in any order.

    Raises BadInput, naming the label, for an empty or repeated name, text that is not UTF-8, or a limit passed.
    """
    metric = b""
    seen: bytes | None = None
    named = False
    parts: list[bytes] = []
    size = 0
    for name, value in sorted(labels):
        if name == seen:
            raise BadInput(f"label {_show(name)} occurs more than once in one series")
        seen = name
        if not name:
            raise BadInput("a label has an empty name")
        if not value:
            continue
        if len(name) > MAX_LABEL_NAME_BYTES:
            raise BadInput(f"label name {_show(name)} has {len(name)} bytes; the limit is {MAX_LABEL_NAME_BYTES}")
        if len(value) > MAX_LABEL_VALUE_BYTES:
            raise BadInput(
                f"the value of label {_show(name)} has {len(value)} bytes; the limit is {MAX_LABEL_VALUE_BYTES}"
            )
        size += len(name) + len(value)
        if name == NAME:
            metric, named = value, True
        else:
            parts += (name, value)
    if not named and not parts:
        raise BadInput("a series needs at least one label")
    if size > MAX_SERIES_BYTES:
        raise BadInput(f"the labels of a series have {size} bytes; the limit is {MAX_SERIES_BYTES}")
    if len(parts) > 2 * MAX_LABELS:
        raise BadInput(f"a series has {len(parts) // 2} labels; the limit is {MAX_LABELS}")
    key = SEPARATOR.join((metric, *parts, b""))
    try:
        key.replace(SEPARATOR, b" ").decode()
    except UnicodeDecodeError:
        _refuse_non_utf8([(NAME, metric), *zip(parts[::2], parts[1::2], strict=True)])
    if key.count(SEPARATOR) != len(parts) + 1:
        _refuse_non_utf8([(NAME, metric), *zip(parts[::2], parts[1::2], strict=True)])
    return key


def key_of(labels: Mapping[str, str]) -> bytes:
    """`series_key` of text labels."""
    return series_key((name.encode(), value.encode()) for name, value in labels.items())


def split_key(key: bytes) -> list[tuple[bytes, bytes]]:
    """The (name, value) pairs of a key, in byte order of the names."""
    metric, *rest = key.split(SEPARATOR)[:-1]
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    if metric:
        pairs.append((NAME, metric))
        pairs.sort()
    return pairs


def labels_of(key: bytes) -> dict[str, str]:
    """The labels of a key as text, in order of the names."""
    return {name.decode(): value.decode() for name, value in split_key(key)}


def _show(name: bytes) -> str:
    text = name[:60].decode(errors="backslashreplace")
    return f'"{text}…"' if len(name) > 60 else f'"{text}"'


def _refuse_non_utf8(pairs: list[tuple[bytes, bytes]]) -> None:
    for name, value in pairs:
        for text, what in ((name, "the name of label"), (value, "the value of label")):
            try:
                text.decode()
            except UnicodeDecodeError:
                raise BadInput(f"{what} {_show(name)} is not UTF-8") from None
