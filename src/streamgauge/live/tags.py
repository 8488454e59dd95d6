"""The live channel of values by their tags, as Mist has it: a message goes to whoever subscribed to tags that it has
all. Nothing is kept for who is not there, and who reads too slowly loses messages.

The messages are JSON objects of command, tags, data and, where something is wrong, error.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator

from streamgauge.errors import BadInput, Overloaded
from streamgauge.live.tag_index import TagIndex
from streamgauge.stats import Reading

MAX_SUBSCRIBERS = 1_000
"""Each may be told of each value, at a µs or so."""
MAX_SUBSCRIPTIONS = 100
"""Of one subscriber."""
MAX_SUBSCRIPTIONS_BYTES = 131_072
"""Of memory that the tags of one subscriber take: ten of each subscription. `list` tells them all."""
_TEXT_BYTES = 64
"""Of a tag beside its characters."""
MAX_TAGS = 67
"""Of one subscription or message: a value of a relay has those of its collector, which are 64 at most, and three."""
MAX_TAG_BYTES = 1_024
"""Of a relay they have 255, which become three times as many where they are no UTF-8."""
MAX_WAITING = 1_000
"""Messages that wait for one subscriber, of some hundred bytes each: those of a thousand stats, once."""
MAX_WAITING_BYTES = 1 << 20
"""Of the same, and a gigabyte for all subscribers that there may be. One message, of MAX_TAGS, may have a quarter."""
DELIVERY_BYTES = 65_536
"""Handed over at once: what the connection takes before it is full."""


class TagHub:
    """Used on the event loop. changed: called when somebody comes or goes, with whether anybody is there."""

    def __init__(self, changed: Callable[[bool], None] = lambda busy: None) -> None:
        self._changed = changed
        self._subscribers: set[Subscriber] = set()
        self._index = TagIndex[Subscriber]()
        self._published = 0
        self._lost = 0

    def join(self) -> Subscriber:
        """A subscriber with no subscriptions. Raises Overloaded."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise Overloaded(f"{MAX_SUBSCRIBERS} follow live values already", retry_after=10)
        subscriber = Subscriber(self)
        self._subscribers.add(subscriber)
        self._changed(True)
        return subscriber

    def publish(self, tags: Collection[str], data: str, sender: Subscriber | None = None) -> None:
        """Tell all but the sender who have subscribed to it."""
        wanting = self._index.fulfilled(frozenset(tags))
        if sender is not None:
            wanting.discard(sender)
        if not wanting:
            return
        text = message("publish", list(tags), data)
        size = len(text.encode())
        self._published += len(wanting)
        for subscriber in wanting:
            subscriber.put(text, size)

    # ---- from subscribers -------------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, wanted: frozenset[str]) -> None:
        self._index.add(wanted, subscriber)

    def unsubscribe(self, subscriber: Subscriber, wanted: frozenset[str]) -> None:
        self._index.remove(wanted, subscriber)

    def lose(self) -> None:
        """A subscriber has lost a message."""
        self._lost += 1

    def leave(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        self._changed(bool(self._subscribers))

    # ---- from the server --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The server stops: nobody waits any more."""
        for subscriber in list(self._subscribers):
            subscriber.close()

    def readings(self) -> Iterator[Reading]:
        yield Reading.of("streamgauge_live_subscribers", "gauge", "Who follows live values.", len(self._subscribers))
        yield Reading.of(
            "streamgauge_live_messages_total", "counter", "Live values handed to subscribers.", self._published
        )
        yield Reading.of(
            "streamgauge_live_messages_lost_total",
            "counter",
            "Live values that a subscriber lost because it reads too slowly.",
            self._lost,
        )


class Subscriber:
    """One client: what it has subscribed to, and what waits for it."""

    def __init__(self, hub: TagHub) -> None:
        self._hub = hub
        self._subscriptions: dict[frozenset[str], list[str]] = {}
        self._subscriptions_bytes = 0
        self._waiting: deque[tuple[str, int]] = deque()  # with their sizes
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self._closed = False

    def put(self, text: str, size: int) -> None:
        """For it the oldest that wait may be lost. size: bytes."""
        self._waiting.append((text, size))
        self._waiting_bytes += size
        while len(self._waiting) > MAX_WAITING or (self._waiting_bytes > MAX_WAITING_BYTES and len(self._waiting) > 1):
            self._first()
            self._hub.lose()
        self._news.set()

    async def next(self) -> list[str]:
        """Messages, as soon as there are some; none when it is over."""
        while not self._waiting and not self._closed:
            self._news.clear()
            await self._news.wait()
        texts: list[str] = []
        left = DELIVERY_BYTES
        while self._waiting and (not texts or self._waiting[0][1] <= left):
            left -= self._waiting[0][1]
            texts.append(self._first())
        return texts

    def _first(self) -> str:
        text, size = self._waiting.popleft()
        self._waiting_bytes -= size
        return text

    def close(self) -> None:
        self._closed = True
        for wanted in self._subscriptions:
            self._hub.unsubscribe(self, wanted)
        self._subscriptions.clear()
        self._hub.leave(self)
        self._news.set()

    def handle(self, raw: bytes, publishes: bool = True) -> None:
        """Do what a message of the client says. publishes: whether it may."""
        command, tags = "", list[str]()
        try:
            command, tags, data = _parsed(raw)
            answer = self._handled(command, tags, data, publishes)
        except BadInput as error:
            answer = message(command, tags, "", error.message)
        if answer:
            self.put(answer, len(answer.encode()))

    def _handled(self, command: str, tags: list[str], data: str, publishes: bool) -> str:
        match command:
            case "ping":
                return message("ping", [], "pong")
            case "subscribe":
                self._subscribe(tags)
            case "unsubscribe":
                self._unsubscribe(tags)
            case "list":
                return message("list", tags, " ".join(",".join(each) for each in self._subscriptions.values()))
            case "publish":
                if not publishes:
                    raise BadInput("this client may not publish")
                self._hub.publish(tags, data, self)
            case _:
                raise BadInput("Unknown Command")
        return ""

    def _subscribe(self, tags: list[str]) -> None:
        if not tags:
            raise BadInput("a subscription needs tags")
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise BadInput(f"a client has at most {MAX_SUBSCRIPTIONS} subscriptions")
        wanted = frozenset(tags)
        if wanted in self._subscriptions or self._closed:
            return
        if self._subscriptions_bytes + _size(tags) > MAX_SUBSCRIPTIONS_BYTES:
            raise BadInput(f"the tags of all subscriptions of a client take at most {MAX_SUBSCRIPTIONS_BYTES} bytes")
        self._subscriptions[wanted] = tags
        self._subscriptions_bytes += _size(tags)
        self._hub.subscribe(self, wanted)

    def _unsubscribe(self, tags: list[str]) -> None:
        wanted = frozenset(tags)
        if (known := self._subscriptions.pop(wanted, None)) is not None:
            self._subscriptions_bytes -= _size(known)
            self._hub.unsubscribe(self, wanted)


def message(command: str, tags: list[str], data: str, error: str = "") -> str:
    fields: dict[str, object] = {"command": command, "tags": tags, "data": data}
    if error:
        fields["error"] = error
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _parsed(raw: bytes) -> tuple[str, list[str], str]:
    """Command, tags and data. Raises BadInput."""
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadInput("this is no JSON") from None
    if not isinstance(given, dict):
        raise BadInput("a message is a JSON object")
    command, tags, data = given.get("command", ""), given.get("tags") or [], given.get("data", "")
    if not isinstance(command, str) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadInput("command must be text, and tags a list of texts")
    if len(tags) > MAX_TAGS:
        raise BadInput(f"a message has at most {MAX_TAGS} tags")
    try:
        longest = max(len(text.encode()) for text in (command, *tags))
        data = data if isinstance(data, str) else json.dumps(data)
        data.encode()
    except (UnicodeEncodeError, RecursionError):  # half of a surrogate pair; lists in lists
        raise BadInput("this is no text that can be told to anybody") from None
    if longest > MAX_TAG_BYTES:
        raise BadInput(f"a command and a tag have at most {MAX_TAG_BYTES} bytes")
    return command, tags, data


def _size(tags: list[str]) -> int:
    return sum(len(tag.encode()) + _TEXT_BYTES for tag in tags)
