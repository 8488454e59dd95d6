"""From the labels in a target's text to the id of a series in the store: target labels, relabelling, limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from streamgauge.errors import BadInput, NotAllowed, Overloaded
from streamgauge.ingest.scrape.job import Limits, ScrapeJob
from streamgauge.model.labels import key_of, series_key
from streamgauge.relabel import Relabelling
from streamgauge.wire.exposition_text import Pairs
from streamgauge.wire.findings import Reason, no_room, series_text
from streamgauge.wire.scraped import DROPPED, REFUSED

Resolve = Callable[[bytes], int]

EXPORTED = "exported_"


class TargetSeries:
    """Of one target. `of` is a `wire.scraped.SeriesOf`; it is asked once for each series that is new."""

    def __init__(self, job: ScrapeJob, labels: Mapping[str, str], relabelling: Relabelling, resolve: Resolve) -> None:
        self._honor = job.honor_labels
        self._limits = job.limits
        self._labels = dict(labels)
        self._encoded = [(name.encode(), value.encode()) for name, value in labels.items()]
        self._names = {name for name, _ in self._encoded}
        self._relabelling = relabelling
        self._resolve = resolve
        self._simple = not relabelling and job.limits == Limits(job.limits.body, job.limits.samples)
        self._report_keys: dict[str, bytes] = {}  # by metric
        self.refusal = ""  # why a series was refused, since `begin`
        self.refused: Counter[Reason] = Counter()  # how often `of` refused one, since `begin`

    def begin(self) -> None:
        """A scrape begins."""
        self.refusal = ""
        self.refused = Counter()

    def of(self, pairs: Pairs) -> int:
        """Raises BadInput for labels that make the whole scrape fail."""
        if self._simple and self._names.isdisjoint([name for name, _ in pairs]):
            return self._id(series_key([*pairs, *self._encoded]))
        labels = self._mutated(pairs)
        if labels is None:
            return DROPPED
        if not labels.get("__name__"):
            raise NotAllowed(f"relabelling leaves no metric name: {series_text(pairs)}")
        _check_limits(labels, self._limits)
        return self._id(key_of(labels))

    def report(self, metric: str) -> int:
        """The id of a series about the scrape itself; REFUSED when there is no room."""
        key = self._report_keys.get(metric)
        if key is None:
            key = self._report_keys[metric] = key_of({**self._labels, "__name__": metric})
        try:
            return self._resolve(key)
        except Overloaded:
            return REFUSED

    def _id(self, key: bytes) -> int:
        try:
            return self._resolve(key)
        except Overloaded as error:
            self.refusal = error.message
            self.refused[no_room(error)] += 1
            return REFUSED

    def _mutated(self, pairs: Pairs) -> dict[str, str] | None:
        try:
            own = {name.decode(): value.decode() for name, value in pairs}
        except UnicodeDecodeError:
            raise BadInput(f"a label is not UTF-8: {series_text(pairs)}") from None
        if len(own) < len(pairs):
            raise BadInput(f"a label occurs more than once: {series_text(pairs)}")
        merged = {**self._labels, **own} if self._honor else self._renamed(own)
        return self._relabelling.apply(merged)

    def _renamed(self, own: Mapping[str, str]) -> dict[str, str]:
        """The target's labels win; those of the same name that the text has are called exported_…."""
        merged = {**own, **self._labels}
        clashing = [name for name in self._labels if own.get(name)]
        for name in sorted(clashing, key=len):
            new = EXPORTED + name
            while merged.get(new):
                new = EXPORTED + new
            merged[new] = own[name]
        return merged


def _check_limits(labels: Mapping[str, str], limits: Limits) -> None:
    """Raises NotAllowed: one series beyond a limit of its labels makes the scrape fail."""
    metric = labels["__name__"][:50]
    if limits.labels and len(labels) > limits.labels:
        raise NotAllowed(f"label_limit exceeded: {metric} has {len(labels)} labels; the limit is {limits.labels}")
    if not limits.label_name and not limits.label_value:
        return
    for name, value in labels.items():
        size = len(name.encode())
        if limits.label_name and size > limits.label_name:
            raise NotAllowed(
                f"label_name_length_limit exceeded: {metric}: the name of label {name[:50]} has {size} bytes; the "
                f"limit is {limits.label_name}"
            )
        size = len(value.encode())
        if limits.label_value and size > limits.label_value:
            raise NotAllowed(
                f"label_value_length_limit exceeded: {metric}: the value of label {name[:50]} has {size} bytes; the "
                f"limit is {limits.label_value}"
            )
