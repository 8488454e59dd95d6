"""Where live values are published, as it is configured, and what each kind does with them."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MAX_PART_BYTES = 255
"""Of what stands for a host, a collector or a name: NATS takes 4,096 bytes for all, and no usual one has 100."""
_PLANE = 0x10000
_NO_CHARACTERS = "".join(chr(end - 2) + chr(end - 1) for end in range(_PLANE, 18 * _PLANE, _PLANE))
_NOWHERE = re.compile(rf"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NO_CHARACTERS}]")
"""Control characters, and what Unicode says is no character: brokers hang up on them."""

_OBJECT_BYTES = 64
"""Of a text beside its characters, and of a value beside its texts."""
TOPIC, SUBJECT = "pulse/{host}/{name}", "pulse.{host}.{name}"


@dataclass(frozen=True, slots=True)
class MqttTarget:
    """topic: {host}, {collector} and {name} stand for those of a value."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    topic: str = TOPIC


@dataclass(frozen=True, slots=True)
class NatsTarget:
    """subject: as the topic of MQTT. token: in place of user and password."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    subject: str = SUBJECT


@dataclass(frozen=True, slots=True)
class MistTarget:
    host: str
    port: int
    token: str = field(default="", repr=False)


LiveTarget = MqttTarget | NatsTarget | MistTarget

KINDS = {MqttTarget: "mqtt", NatsTarget: "nats", MistTarget: "mist"}
"""What each is called in metrics and in the log."""


@dataclass(frozen=True, slots=True)
class LiveValue:
    """tags: as subscribers see them. text: the value as it came, a finite decimal number. time: ms."""

    host: str
    collector: str
    name: str
    text: str
    tags: tuple[str, ...]
    time: int

    @property
    def size(self) -> int:
        """Bytes of memory, roughly."""
        texts = (self.host, self.collector, self.name, self.text, *self.tags)
        return _OBJECT_BYTES * (1 + len(texts)) + sum(map(len, texts))

    def message(self) -> bytes:
        """As JSON, for who is told of it in full."""
        fields = {"time": self.time, "value": float(self.text), "tags": self.tags}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


Take = Callable[[], Awaitable[Sequence[LiveValue]]]
Given = Callable[[int], None]


class Outlet(Protocol):
    """One destination."""

    async def run(self, take: Take, given: Given) -> None:
        """Connect, and hand on what `take` gives, as soon as it gives some, until the connection fails; `given` is
        called when they are with the other side, with how many of them cannot be named there. Raises DeliveryFailed."""


def placed(pattern: str, value: LiveValue, forbidden: re.Pattern[str]) -> str:
    """A topic or subject. What may not stand in a part of one becomes an underscore: there or anywhere."""
    parts = {"host": value.host, "collector": value.collector, "name": value.name}
    return re.sub(r"\{(host|collector|name)\}", lambda found: _part(parts[found[1]], forbidden), pattern)


def _part(text: str, forbidden: re.Pattern[str]) -> str:
    short = text.encode(errors="replace")[:MAX_PART_BYTES].decode(errors="ignore")
    return forbidden.sub("_", _NOWHERE.sub("_", short)) or "_"
