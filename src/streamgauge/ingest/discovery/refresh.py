"""Asking again and again, for discoveries that have to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.discovery.groups import Found, Group
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

_SHOWN = 5  # failures in one line of the log


@dataclass(frozen=True, slots=True)
class Parts:
    """What a discovery has found, by where: a file, a name. A part that failed keeps the groups that it had, one
    that is in neither is gone. failures: in words that name the part."""

    groups: dict[str, Sequence[Group]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


Ask = Callable[[], Awaitable[Parts]]
"""Raises a StreamgaugeError when nothing can be told: everything that was found before then stays."""

_WHOLE = ""  # the part that fails when asking raises


class Refresh:
    """Asks every `interval` ms and hands over what is new. kind, name: of the discovery, for metrics and the log."""

    def __init__(self, ask: Ask, interval: int, kind: str, name: str, clock: Clock, stats: Stats) -> None:
        self._ask = ask
        self._seconds = interval / 1000
        self._kind, self._name = kind, name
        self._clock = clock
        self._stats = stats
        self._failing: frozenset[str] = frozenset()  # parts

    async def run(self, found: Found) -> None:
        """Until cancelled."""
        last: dict[str, Sequence[Group]] = {}
        while True:
            try:
                parts = await self._ask()
            except StreamgaugeError as error:
                self._note({_WHOLE: error.message}, self._failing)
            except Exception as error:  # a mistake of ours with what one discovery gave must not end the others
                LOG.exception("a mistake in streamgauge")
                self._note({_WHOLE: f"a mistake in streamgauge: {error!r}"}, self._failing)
            else:
                self._note(parts.failures)
                groups = {part: last[part] for part in parts.failures if part in last} | parts.groups
                if groups != last:
                    last = groups
                    found([group for part in sorted(groups) for group in groups[part]])
            await self._clock.sleep(self._seconds)

    def _note(self, failures: Mapping[str, str], unknown: frozenset[str] = frozenset()) -> None:
        """Count failures, and log those that have begun or ended. unknown: parts of which nothing was heard."""
        if failures:
            self._stats.discovery_failures.labels(self._kind).inc()
        begun = [message for part, message in failures.items() if part not in self._failing]
        if begun:
            more = f"; and {len(begun) - _SHOWN} more" if len(begun) > _SHOWN else ""
            message = "; ".join(begun[:_SHOWN]) + more
            LOG.warning("%s discovery, %s: %s; the targets found before stay", self._kind, self._name, message)
        ended = sorted(self._failing - unknown - failures.keys())
        if ended:
            more = f" and {len(ended) - _SHOWN} more" if len(ended) > _SHOWN else ""
            names = ", ".join(part or self._name for part in ended[:_SHOWN])
            LOG.info("%s discovery, %s%s: works again", self._kind, names, more)
        self._failing = unknown | failures.keys()
