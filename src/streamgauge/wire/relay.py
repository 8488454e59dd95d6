"""The line protocol between a relay and the server that asks it for its values: TCP, text, a line a message.

    relay to server                                  server to relay
    id NAME                     first of all         ok, and beat SECONDS
    add COLLECTOR[:TAG,TAG…]    can now be asked     get COLLECTOR,COLLECTOR…
    remove COLLECTOR                                 override SECONDS COLLECTOR:INTERVAL,…
    got C-N:V,C-N:V…            answer to get        flush
    ping                        once each beat       pong
    ok, close

C is a collector, N a name of a value of it, V a number; a TAG is key:value. A collector of one value has N = C.
Either side takes what it does not know for nothing. The standard library alone: clients use this, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streamgauge.errors import BadInput

MAX_LINE_BYTES = 65_536
"""A longer line is left out: this one holds 2,500 values of usual names, and is read in some milliseconds."""
MAX_TAGS = 64
"""Of one collector. Who follows live values is told all of them with each value."""
MAX_NAME_BYTES = 255
"""Of a collector, of a value and of a tag with its key: a connection and each poll hold thousands of them."""
MAX_NUMBER_BYTES = 512
"""Of the text of a number. The largest double has 309 digits before the point, and text is told as it came."""

ID, ADD, REMOVE, GOT, PING, OK, CLOSE = b"id", b"add", b"remove", b"got", b"ping", b"ok", b"close"
PONG, BEAT, GET, OVERRIDE, FLUSH = b"pong", b"beat", b"get", b"override", b"flush"

IDENTIFY_FIRST = b"identify first with the 'id' command\n"
MISSING_ID = b"missing id\n"
FOREIGN_ID = b"the certificate is not of this id\n"

RESERVED = "_connected"
"""No collector may be called so."""
_TOO_LONG = f"{{}} has at most {MAX_NAME_BYTES} bytes"
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_FORBIDDEN = re.compile(r"[-:,\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` says. tags: those with a key and a value, of which the last of a key counts; words: all that are not
    empty, as they came."""

    name: bytes
    tags: tuple[tuple[bytes, bytes], ...] = ()
    words: tuple[bytes, ...] = ()


class LineReader:
    """Divides a stream into lines, however it is cut. At most MAX_LINE_BYTES are held.

    too_long: lines left out so far.
    """

    def __init__(self) -> None:
        self.too_long = 0
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`, without what ends them; empty ones are left out."""
        *lines, rest = data.split(b"\n")
        if not lines:
            self._hold(rest)
            return []
        if self._skipping:
            self._skipping = False
            del lines[0]
        else:
            lines[0] = self._rest + lines[0]
        self._rest = b""
        self._hold(rest)
        kept = []
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                self.too_long += 1
            elif line := line.rstrip(b"\r"):
                kept.append(line)
        return kept

    def _hold(self, rest: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(rest) > MAX_LINE_BYTES:
            self.too_long += 1
            self._skipping, self._rest = True, b""
        else:
            self._rest += rest


def command(line: bytes) -> tuple[bytes, bytes]:
    """The first word of a line, and what follows it."""
    word, _, rest = line.partition(b" ")
    return word, rest.strip()


def number(text: bytes) -> float | None:
    """The finite decimal number that a value is; None when it is none."""
    if len(text) > MAX_NUMBER_BYTES:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and b"_" not in text else None


def added(rest: bytes) -> Added:
    """What follows `add`. A tag without a colon, or with an empty key, says nothing. Raises BadInput."""
    name, _, tags = rest.partition(b":")
    if len(name) > MAX_NAME_BYTES:
        raise BadInput(_TOO_LONG.format("the name of a collector"))
    check_collector(name.decode(errors="replace"))
    if tags.count(b",") >= MAX_TAGS:
        raise BadInput(f"a collector has at most {MAX_TAGS} tags")
    found: dict[bytes, bytes] = {}
    all_of_them = words(tags)
    if any(len(tag) > MAX_NAME_BYTES for tag in all_of_them):
        raise BadInput(_TOO_LONG.format("a tag"))
    if _CONTROL.search(tags):  # as JSON six times as long: a message would be longer than a line may be
        raise BadInput("a tag holds no control characters")
    for tag in all_of_them:
        key, colon, value = tag.partition(b":")
        if colon and key:
            found[key] = value
    return Added(name, tuple(found.items()), tuple(all_of_them))


def check_collector(name: str) -> None:
    """Raises BadInput for what is no name of a collector."""
    if not name:
        raise BadInput("a collector needs a name")
    if name == RESERVED or _FORBIDDEN.search(name):
        raise BadInput(f'"{name[:60]}" is no name of a collector: it holds no hyphen, colon, comma or space')
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise BadInput(_TOO_LONG.format("the name of a collector"))


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises BadInput for what cannot be the tags of a collector."""
    if len(tags) > MAX_TAGS:
        raise BadInput(f"a collector has at most {MAX_TAGS} tags")
    for key, value in tags.items():
        if not key or any(character in key + value for character in ",\r\n") or ":" in key:
            raise BadInput(f'"{key}:{value}" is no tag: neither half holds a comma, nor the key a colon')
        if _CONTROL.search((key + value).encode(errors="replace")):
            raise BadInput(f'"{key}:{value}" is no tag: it holds control characters')
        if len(f"{key}:{value}".encode(errors="replace")) > MAX_NAME_BYTES:
            raise BadInput(_TOO_LONG.format("a tag"))


def check_stat(name: str) -> None:
    """Raises BadInput for what cannot be the name of a value."""
    if not name or any(character in name for character in ":,\r\n"):
        raise BadInput(f'"{name[:60]}" is no name of a value: it holds no colon, comma or line end')
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise BadInput(_TOO_LONG.format("the name of a value"))


def words(rest: bytes) -> list[bytes]:
    """What is separated by commas: the collectors that `get` names."""
    return [word for part in rest.split(b",") if (word := part.strip())]


def overridden(rest: bytes) -> tuple[float, dict[bytes, float]]:
    """What follows `override`: for how many seconds, and the seconds between two collections of each collector. A pair
    that is none is left out. Raises BadInput where there is no duration."""
    duration, _, pairs = rest.partition(b" ")
    seconds = number(duration)
    if seconds is None or seconds <= 0:
        raise BadInput(f"override {duration[:60]!r} has no duration")
    intervals = {}
    for pair in words(pairs):
        name, _, interval = pair.partition(b":")
        each = number(interval)
        if name and each is not None and each > 0:
            intervals[name] = each
    return seconds, intervals


# ---- lines ----------------------------------------------------------------------------------------------------------


def line(word: bytes, rest: bytes = b"") -> bytes:
    return word + b" " + rest + b"\n" if rest else word + b"\n"


def beat_line(seconds: float) -> bytes:
    return line(BEAT, _plain(seconds))


def get_line(collectors: Iterable[bytes]) -> bytes:
    return line(GET, b",".join(collectors))


def override_line(seconds: float, intervals: Mapping[bytes, float]) -> bytes:
    pairs = b",".join(name + b":" + _plain(each) for name, each in intervals.items())
    return line(OVERRIDE, _plain(seconds) + b" " + pairs)


def add_line(name: str, tags: Mapping[str, str]) -> bytes:
    pairs = ",".join(f"{key}:{value}" for key, value in tags.items())
    return line(ADD, (f"{name}:{pairs}" if pairs else name).encode())


def got_lines(values: Mapping[str, Mapping[str, float]]) -> bytes:
    """Answers to `get`, as many lines as it takes. values: by collector and name; those that are not finite are left
    out."""
    lines: list[bytes] = []
    items: list[bytes] = []
    size = 0
    for collector, stats in values.items():
        for name, value in stats.items():
            if not math.isfinite(value):
                continue
            item = f"{collector}-{name}:{_decimal(value)}".encode()
            if size + len(item) + 8 > MAX_LINE_BYTES:
                lines.append(line(GOT, b",".join(items)))
                items, size = [], 0
            items.append(item)
            size += len(item) + 1
    if items:
        lines.append(line(GOT, b",".join(items)))
    return b"".join(lines)


def _plain(seconds: float) -> bytes:
    return b"%d" % seconds if seconds == int(seconds) else repr(seconds).encode()


def _decimal(value: float) -> str:
    """With four places, as relays write it, where that is the number itself; else with as many as it takes."""
    rounded = f"{value:.4f}"
    return rounded if float(rounded) == value else repr(float(value))
