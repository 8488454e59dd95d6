"""Which new series were refused because a metric, a label or the index is full."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamgauge.errors import IndexFull, LabelFull, MetricFull
from streamgauge.model.labels import labels_of

LOG = logging.getLogger(__name__)

METRIC, LABEL, INDEX = LIMITS = ("metric", "label", "index")
"""What may be full."""
MOST_NAMES = 200
"""Metrics and labels that are remembered, those last refused: more of them at once is no longer one mistake."""
_SHOWN_LABELS = 40
_SHOWN_CHARACTERS = 100
"""Of a name or a value of the example: it is to be recognised, and many of them are kept."""


@dataclass(slots=True)
class Refusal:
    """What one metric or label was refused."""

    limit: str  # one of LIMITS
    name: str  # of the metric or label, "" of the index
    attempts: int  # times that a new series was refused: one that is sent again counts again
    first: int  # ms
    last: int  # ms
    example: Mapping[str, str]  # labels of the series last refused, long ones cut


class Refusals:
    """Used on one thread."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()  # attempts by limit, since the start
        self._by_name: dict[tuple[str, str], Refusal] = {}  # the one last refused is the last

    def note(self, error: IndexFull, key: bytes, now: int) -> None:
        """A new series with this key was refused with this error at `now`, ms."""
        limit = _limit_of(error)
        self.totals[limit] += 1
        known = self._by_name.pop((limit, error.name), None)
        if known is None:
            known = Refusal(limit, error.name, 0, now, now, {})
            self._tell_first(error)
        known.attempts += 1
        known.last = now
        known.example = _shown(key)
        self._by_name[limit, error.name] = known

    def listed(self) -> Sequence[Refusal]:
        """The one last refused first."""
        return list(reversed(self._by_name.values()))

    def _tell_first(self, error: IndexFull) -> None:
        if len(self._by_name) < MOST_NAMES:
            LOG.warning("new series are refused: %s", error.message)
        else:
            del self._by_name[next(iter(self._by_name))]


def _limit_of(error: IndexFull) -> str:
    if isinstance(error, MetricFull):
        return METRIC
    return LABEL if isinstance(error, LabelFull) else INDEX


def _shown(key: bytes) -> dict[str, str]:
    labels = list(labels_of(key).items())[:_SHOWN_LABELS]
    return {name[:_SHOWN_CHARACTERS]: value[:_SHOWN_CHARACTERS] for name, value in labels}
