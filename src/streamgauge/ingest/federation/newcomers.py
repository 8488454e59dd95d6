"""Series of an upload that were not in the one before, read quickly.

Metrics of a push share their labels: each spelling of a label is decoded and held against the rules once. What seems to
break a rule is left to the way that says which.
"""

from __future__ import annotations

from collections.abc import Iterator

from streamgauge.errors import BadInput
from streamgauge.ingest.federation.policy import Policy, too_long
from streamgauge.ingest.federation.whitelist import METRIC_NAME
from streamgauge.model.labels import NAME, series_key
from streamgauge.wire import metric_family_protobuf
from streamgauge.wire.metric_family import MAX_METRIC_LABELS, MetricFamily, MetricType
from streamgauge.wire.push_records import Records, family_of, kinds_of, labels_of

_TAGS = {MetricType.GAUGE: 0x12, MetricType.COUNTER: 0x1A, MetricType.UNTYPED: 0x2A}
"""Of the number of a metric."""
LEFT_OUT_KEY = b""


class Newcomers:
    """Of one push. required: labels that its series must have."""

    def __init__(self, policy: Policy, required: dict[str, str], records: Records, data: bytes) -> None:
        self._policy = policy
        self._required = required.items()
        self._records = records
        self._data = data
        self._kinds = kinds_of(data, records.ends)
        self._families: dict[int, MetricFamily | None] = {}  # by where they begin
        self._labels: dict[bytes, tuple[str, str] | None] = {}  # by their spelling

    def key(self, row: int) -> bytes | None:
        """The key of the series of a metric, LEFT_OUT_KEY where the whitelist leaves it out; None where there may be
        something wrong with it."""
        family = self._family(self._records.heads[row])
        if family is None or self._kinds[row] != _TAGS.get(MetricType(family.type or 0)):
            return None
        messages = labels_of(self._data, self._records.starts[row], int(self._records.ends[row]))
        if messages is None or len(messages) > MAX_METRIC_LABELS:
            return None
        labels: dict[str, str] = {}
        for message in messages:
            if (pair := self._label(message)) is None:
                return None
            labels[pair[0]] = pair[1]
        if len(labels) != len(messages) or not self._required <= labels.items():
            return None
        kept = self._policy.relabelled(family.name, labels)
        if kept is None:
            return LEFT_OUT_KEY
        try:
            return series_key([(NAME, family.name.encode()), *((n.encode(), v.encode()) for n, v in kept.items())])
        except BadInput:
            return None

    def families(self) -> Iterator[MetricFamily]:
        """Those of the metrics that were asked about; without metrics."""
        return (family for family in self._families.values() if family is not None)

    def _family(self, head: int) -> MetricFamily | None:
        if head not in self._families:
            self._families[head] = self._read_family(head)
        return self._families[head]

    def _read_family(self, head: int) -> MetricFamily | None:
        try:
            (family,) = metric_family_protobuf.decode_now(family_of(self._data, head))
        except BadInput:
            return None
        return None if too_long(family.name) or family.type not in _TAGS else family

    def _label(self, message: bytes) -> tuple[str, str] | None:
        if message not in self._labels:
            self._labels[message] = _read_label(message)
        return self._labels[message]


def _read_label(message: bytes) -> tuple[str, str] | None:
    try:
        name, value = metric_family_protobuf.read_label(message, 0, len(message))
    except BadInput:
        return None
    if name == METRIC_NAME or value is None or too_long(name) or too_long(value):
        return None
    return name, value
