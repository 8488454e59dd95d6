"""Series of an upload that were not in the one before, read quickly.

Metrics of a push share their labels: each spelling of a label is decoded and held against the rules once, and so is all
that a metric has of them, which metrics of the same target repeat. What seems to break a rule is left to the way that
says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streamgauge.errors import BadInput
from streamgauge.ingest.federation.policy import Policy, too_long
from streamgauge.ingest.federation.whitelist import METRIC_NAME
from streamgauge.model.labels import MAX_SERIES_BYTES, series_key
from streamgauge.wire import metric_family_protobuf
from streamgauge.wire.metric_family import MAX_METRIC_LABELS, MetricFamily, MetricType
from streamgauge.wire.push_records import TAIL_BYTES, Records, family_of, kinds_of, labels_of

_TAGS: Mapping[int, int] = {MetricType.GAUGE: 0x12, MetricType.COUNTER: 0x1A, MetricType.UNTYPED: 0x2A}
"""Of the number of a metric."""
LEFT_OUT_KEY = b""

_REMEMBERED = 4096
"""Spellings of all labels of a metric that are remembered, a few hundred bytes each: more than an honest push has."""
_LONGEST_NAME = 1024  # bytes of a metric's name, which has 255 at most


@dataclass(frozen=True, slots=True)
class _Family:
    """tag: of the number of its metrics. name: with which the keys of its series begin."""

    described: MetricFamily
    tag: int
    name: bytes


@dataclass(frozen=True, slots=True)
class _Labels:
    """All labels of a metric as they were sent, and how a key spells those that are stored, behind its name."""

    sent: Mapping[str, str]
    key: bytes


class Newcomers:
    """Of one push. required: labels that its series must have."""

    def __init__(self, policy: Policy, required: Mapping[str, str], records: Records, data: bytes) -> None:
        self._policy = policy
        self._all = policy.whitelist.allows_all
        self._required = required.items()
        self._records = records
        self._ends: list[int] = records.ends.tolist()
        self._data = data
        self._kinds: list[int] = kinds_of(data, records.ends).tolist()
        self._families: dict[int, _Family | None] = {}  # by where they begin
        self._allowed: dict[int, MetricFamily] = {}  # those of which something is stored
        self._pairs: dict[bytes, tuple[str, str] | None] = {}  # labels by their spelling
        self._labels: dict[bytes, _Labels | None] = {}  # all of a metric by their spelling

    def key(self, row: int) -> bytes | None:
        """The key of the series of a metric, LEFT_OUT_KEY where the whitelist leaves it out; None where there may be
        something wrong with it."""
        family = self._family(self._records.heads[row])
        if family is None or self._kinds[row] != family.tag:
            return None
        labels = self._labels_of(row)
        if labels is None:
            return None
        if not self._all and not self._policy.whitelist.allows(family.described.name, labels.sent):
            return LEFT_OUT_KEY
        self._allowed[self._records.heads[row]] = family.described
        return family.name + labels.key

    def families(self) -> Iterable[MetricFamily]:
        """Those of the metrics that were asked about and are not left out; without metrics."""
        return self._allowed.values()

    def _family(self, head: int) -> _Family | None:
        if head not in self._families:
            self._families[head] = self._read_family(head)
        return self._families[head]

    def _read_family(self, head: int) -> _Family | None:
        try:
            (family,) = metric_family_protobuf.decode_now(family_of(self._data, head))
        except BadInput:
            return None
        tag = None if family.type is None else _TAGS.get(family.type)
        return None if too_long(family.name) or tag is None else _Family(family, tag, family.name.encode())

    def _labels_of(self, row: int) -> _Labels | None:
        spelled = self._data[self._records.starts[row] : self._ends[row] - TAIL_BYTES]
        if spelled not in self._labels:
            if len(self._labels) >= _REMEMBERED:
                self._labels.clear()
            self._labels[spelled] = self._read_labels(row)
        return self._labels[spelled]

    def _read_labels(self, row: int) -> _Labels | None:
        messages = labels_of(self._data, self._records.starts[row], self._ends[row])
        if messages is None or len(messages) > MAX_METRIC_LABELS:
            return None
        sent: dict[str, str] = {}
        for message in messages:
            if (pair := self._pair(message)) is None:
                return None
            sent[pair[0]] = pair[1]
        if len(sent) != len(messages) or not self._required <= sent.items():
            return None
        try:
            key = series_key([(name.encode(), value.encode()) for name, value in self._policy.stored(sent).items()])
        except BadInput:
            return None
        return None if len(key) > MAX_SERIES_BYTES - _LONGEST_NAME else _Labels(sent, key)

    def _pair(self, message: bytes) -> tuple[str, str] | None:
        if message not in self._pairs:
            self._pairs[message] = _read_label(message)
        return self._pairs[message]


def _read_label(message: bytes) -> tuple[str, str] | None:
    try:
        name, value = metric_family_protobuf.read_label(message, 0, len(message))
    except BadInput:
        return None
    if name == METRIC_NAME or value is None or too_long(name) or too_long(value):
        return None
    return name, value
