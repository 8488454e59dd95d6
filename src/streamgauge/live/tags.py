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
from streamgauge.stats import Reading

MAX_SUBSCRIBERS = 1_000
"""Each is looked at for each value while there are any."""
MAX_SUBSCRIPTIONS = 100
"""Of one subscriber."""
MAX_TAGS = 64
"""Of one subscription or message."""
MAX_WAITING = 1_000
"""Messages that wait for one subscriber, of some hundred bytes each: those of a thousand stats, once."""


class TagHub:
    """Used on the event loop. changed: called when somebody comes or goes, with whether anybody is there."""

    def __init__(self, changed: Callable[[bool], None] = lambda busy: None) -> None:
        self._changed = changed
        self._subscribers: set[Subscriber] = set()
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
        text = ""
        have = frozenset(tags)
        for subscriber in self._subscribers:
            if subscriber is not sender and subscriber.wants(have):
                text = text or message("publish", list(tags), data)
                self._published += 1
                self._lost += subscriber.put(text)

    def leave(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        self._changed(bool(self._subscribers))

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
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()
        self._closed = False

    def wants(self, tags: frozenset[str]) -> bool:
        return any(wanted <= tags for wanted in self._subscriptions)

    def put(self, text: str) -> bool:
        """Whether the oldest that waits is lost for it."""
        lost = len(self._waiting) >= MAX_WAITING
        if lost:
            self._waiting.popleft()
        self._waiting.append(text)
        self._news.set()
        return lost

    async def next(self) -> list[str]:
        """Messages, as soon as there are some; none when it is over."""
        while not self._waiting and not self._closed:
            self._news.clear()
            await self._news.wait()
        texts = list(self._waiting)
        self._waiting.clear()
        return texts

    def close(self) -> None:
        self._closed = True
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
            self.put(answer)

    def _handled(self, command: str, tags: list[str], data: str, publishes: bool) -> str:
        match command:
            case "ping":
                return message("ping", [], "pong")
            case "subscribe":
                self._subscribe(tags)
            case "unsubscribe":
                self._subscriptions.pop(frozenset(tags), None)
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
        self._subscriptions.setdefault(frozenset(tags), tags)


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
    return command, tags, data if isinstance(data, str) else json.dumps(data)
