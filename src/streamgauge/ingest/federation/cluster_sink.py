"""The store as one cluster may write to it: a sink that holds each series against the rules when it first comes.

A decoder asks for the id of a series once, however many samples it has, so the rules cost nothing for those it knows.
Its cache must be the cluster's own.
"""

from __future__ import annotations

import numpy as np

from streamgauge.errors import BadInput, ClientError, PushRefused
from streamgauge.ingest.federation.layouts import LEFT_OUT
from streamgauge.ingest.federation.policy import Policy
from streamgauge.ingest.federation.pushes import Sender, too_many_series
from streamgauge.ingest.federation.whitelist import METRIC_NAME
from streamgauge.model.arrays import UInt32s
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.sink import Sink
from streamgauge.wire.findings import shorten


class ClusterSeries:
    """Resolves the series of one request.

    known: series of the cluster that live already, ascending; None where it may have any number.
    fault: the first rule that a series broke; the request is refused then.
    """

    def __init__(self, sink: Sink, policy: Policy, sender: Sender, known: UInt32s | None) -> None:
        self.fault: ClientError | None = None
        self._sink = sink
        self._policy = policy
        self._sender = sender
        self._known = known
        self._new: set[int] = set()

    def resolve(self, key: bytes) -> int:
        """As `Sink.resolve`; LEFT_OUT for a series that the whitelist leaves out. Raises BadInput, too."""
        labels = labels_of(key)
        self._check(labels)
        metric = labels.pop(METRIC_NAME, "")
        kept = self._policy.relabelled(metric, labels)
        if kept is None:
            return LEFT_OUT
        series = self._sink.resolve(key_of({METRIC_NAME: metric, **kept}))
        self._count(series)
        return series

    def _check(self, labels: dict[str, str]) -> None:
        """Have the labels that the sender's series must have."""
        for name, wanted in self._sender.labels.items():
            value = labels.setdefault(name, wanted) if self._sender.adds else labels.get(name)
            if value is None:
                self._refuse(BadInput(f"a required label is missing from the metric: {name} of {_shown(labels)}"))
            elif value != wanted:
                what = f"expected label {name} to have value {wanted} instead of {shorten(value)}: {_shown(labels)}"
                self._refuse(PushRefused(what))

    def _count(self, series: int) -> None:
        if self._known is None:
            return
        at = int(np.searchsorted(self._known, series))
        if at == len(self._known) or self._known[at] != series:
            self._new.add(series)
            count, limit = len(self._known) + len(self._new), self._policy.settings.max_series
            if count > limit:
                self._refuse(too_many_series(self._sender.cluster, count, limit))

    def _refuse(self, error: ClientError) -> None:
        self.fault = self.fault or error
        raise BadInput(error.message)


def _shown(labels: dict[str, str]) -> str:
    inner = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != METRIC_NAME)
    return shorten(f"{labels.get(METRIC_NAME, '')}{{{inner}}}")
