"""What a decoder finds beside the samples it hands over: what it had to refuse, and metadata."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgauge.errors import BadInput, ForeignLabel, LabelFull, MetricFull, Overloaded
from streamgauge.model.batch import Metadata

MAX_EXAMPLES = 5
"""Refused things that an answer names. More would not help whoever reads them in a sender's log."""
_MAX_TEXT = 300
_MAX_SERIES_TEXT = 150
"""Of an example that names a series, so that the reason, which stands behind it, is always there."""

MAX_METADATA_BYTES = 16_384
"""Name, help and unit of one metric: they stay in memory. Help texts are a sentence or two."""

TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
"""Metric types by their number, which remote write 1.0 and 2.0 share."""


class Reason(enum.StrEnum):
    """Why something was not stored. The value is the `reason` label of our own metrics."""

    LABELS = "invalid_labels"  # a series whose labels are not valid
    FOREIGN = "foreign_label"  # a series with another value of a label than its sender is bound to
    TOO_OLD = "too_old"  # a sample before the oldest admitted time: past retention, or of a day that is downsampled
    TOO_NEW = "too_new"  # a sample after the newest admitted time
    SERIES_LIMIT = "series_limit"  # a new series that the index has no room for
    METRIC_LIMIT = "metric_series_limit"  # a new series of a metric that has as many as it may
    LABEL_LIMIT = "label_values_limit"  # a new series with a new value of a label that has as many as it may
    HISTOGRAM = "native_histogram"
    EXEMPLAR = "exemplar"
    METADATA = "invalid_metadata"
    LINE = "invalid_line"  # a line of a file that gives no sample
    LINE_TOO_LONG = "line_too_long"  # a line that is left out unread
    STRING = "string_field"  # a field whose value is text
    MALFORMED = "malformed"  # a message of a stream that is none
    NO_TIME = "no_timestamp"  # a sample without a time of its own, where it needs one
    DUPLICATE = "duplicate"  # a sample of a series that the same scrape has given already


def bad_labels(error: BadInput) -> Reason:
    """Why a sink does not take a series of such labels."""
    return Reason.FOREIGN if isinstance(error, ForeignLabel) else Reason.LABELS


def no_room(error: Overloaded) -> Reason:
    """Why a sink has no room for a new series."""
    if isinstance(error, MetricFull):
        return Reason.METRIC_LIMIT
    return Reason.LABEL_LIMIT if isinstance(error, LabelFull) else Reason.SERIES_LIMIT


_NOT_STORED_TEXT = {
    Reason.HISTOGRAM: "native histograms are not stored, only float samples are",
    Reason.EXEMPLAR: "exemplars are not stored, only float samples are",
}


@dataclass(slots=True)
class Findings:
    """Filled by a decoder while it runs."""

    refused: Counter[Reason] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)  # the first few refusals, a sentence each
    metadata: dict[str, Metadata] = field(default_factory=dict)  # by metric; taken and emptied by the caller
    example_reasons: list[Reason] = field(default_factory=list)  # of the examples, one each
    start_times: int = 0  # start timestamps seen; accepted, not stored

    def refuse(self, reason: Reason, what: str, count: int = 1) -> None:
        """Count `count` refused things, and keep `what` if there is still room for an example."""
        self.refused[reason] += count
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(shorten(what))
            self.example_reasons.append(reason)

    def mark(self) -> tuple[Counter[Reason], int, int]:
        """Where we are, for `rewind`."""
        return self.refused.copy(), len(self.examples), self.start_times

    def rewind(self, mark: tuple[Counter[Reason], int, int]) -> None:
        """Forget the refusals since `mark`: the same bytes are going to be read again, another way."""
        refused, examples, self.start_times = mark
        self.refused = refused
        del self.examples[examples:], self.example_reasons[examples:]

    def refuse_not_stored(self, counts: Mapping[Reason, int], series: str) -> None:
        """Count histograms and exemplars of a series, `series` being its text."""
        for reason, count in counts.items():
            self.refuse(reason, f"{series}: {_NOT_STORED_TEXT[reason]}", count)

    def note_metadata(self, metric: bytes, kind: int, help_text: bytes, unit: bytes) -> None:
        """Keep a metric's metadata, or refuse it. `kind` is the number on the wire; an undefined one is unknown."""
        if not metric:
            self.refuse(Reason.METADATA, "metadata without a metric's name")
            return
        size = len(metric) + len(help_text) + len(unit)
        if size > MAX_METADATA_BYTES:
            what = f"the metadata of {shorten(_text(metric), _MAX_SERIES_TEXT)} has {size} bytes"
            self.refuse(Reason.METADATA, f"{what}; the limit is {MAX_METADATA_BYTES}")
            return
        word = TYPES[kind] if kind < len(TYPES) else TYPES[0]
        try:
            name = metric.decode()
            self.metadata[name] = Metadata(name, word, help_text.decode(), unit.decode())
        except UnicodeDecodeError:
            self.refuse(Reason.METADATA, f"the metadata of {shorten(_text(metric), _MAX_SERIES_TEXT)} is not UTF-8")


def shorten(text: str, limit: int = _MAX_TEXT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def series_text(pairs: list[tuple[bytes, bytes]]) -> str:
    """Labels as people write them: name{label="value"}. For messages; escapes what is not UTF-8."""
    metric = b"".join(value for name, value in pairs if name == b"__name__")
    others = [(name, value) for name, value in pairs if name != b"__name__"]
    inner = ",".join(f'{_text(name)}="{_text(value)}"' for name, value in others)
    return shorten(f"{_text(metric)}{{{inner}}}", _MAX_SERIES_TEXT)


def _text(raw: bytes) -> str:
    return raw[:_MAX_SERIES_TEXT].decode(errors="backslashreplace")
