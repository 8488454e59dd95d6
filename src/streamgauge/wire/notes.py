"""What lines that begin with # say of metrics, in a file that may say it again before every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamgauge.errors import BadInput
from streamgauge.model.batch import Metadata
from streamgauge.wire import openmetrics_lines
from streamgauge.wire.exposition_text import FLOAT_LABELS, Note, metadata_of, read_note
from streamgauge.wire.findings import MAX_METADATA_BYTES, Findings, Reason

MAX_LINES_BYTES = 4 << 20
"""Of lines that are known as they stand: 40,000 usual ones. When they are more, it begins anew."""
MAX_TEXTS_BYTES = 64 << 20
"""Of what is known of metrics: 300,000 usual ones. When it is more, it begins anew."""
_MAX_REMEMBERED = 5000  # metrics
_FAMILY_ENDINGS = (b"_bucket", b"_count", b"_sum")


class Notes:
    """All notes so far. openmetrics: they may be as that format has them. ended: # EOF was among them. size: bytes of
    the lines that are known as they stand. texts_size: of what is known of metrics."""

    def __init__(self, openmetrics: bool) -> None:
        self.ended = False
        self.size = self.texts_size = 0
        self._openmetrics = openmetrics
        self._texts: dict[bytes, dict[bytes, bytes]] = {}  # by metric, what is known of it
        self._metadata: dict[bytes, Metadata] = {}  # the same; none where it has changed
        self._lines: dict[bytes, Note] = {}
        self._memory: Mapping[str, Any] | None = None  # as it is; None where it has changed

    def read(self, line: bytes, number: int, findings: Findings) -> None:
        """Enter what a line says into the findings. number: the line's own."""
        note = self._lines.get(line)
        if note is None:
            if line.rstrip() == b"# EOF":
                self.ended, self._memory = True, None
                return
            try:
                note = self._note(line)
            except BadInput as error:
                findings.refuse(Reason.METADATA, f"line {number}: {error.message}")
                return
            if note is None or len(note.metric) + len(note.text) > MAX_METADATA_BYTES:
                return
            self._keep(line, note)
        metadata = self._taken_in(note)
        findings.metadata[metadata.metric] = metadata

    def float_label(self, metric: bytes) -> bytes | None:
        """The label of a series of that name whose value is a number, where the metric's type is known."""
        for name in (metric, *(metric.removesuffix(ending) for ending in _FAMILY_ENDINGS if metric.endswith(ending))):
            number = FLOAT_LABELS.get(self._texts.get(name, {}).get(b"TYPE", b""))
            if number is not None:
                return number
        return None

    @property
    def memory(self) -> Mapping[str, Any]:
        """What a later run needs to know, as JSON."""
        if self._memory is None:
            notes = {
                metric.decode(errors="replace"): {
                    what.decode(): text.decode(errors="replace") for what, text in texts.items()
                }
                for metric, texts in list(self._texts.items())[-_MAX_REMEMBERED:]
            }
            self._memory = {"notes": notes, "ended": self.ended}
        return self._memory

    def remember(self, memory: Mapping[str, Any]) -> None:
        self.ended, self._memory = bool(memory["ended"]), None
        for metric, texts in memory["notes"].items():
            self._texts[metric.encode()] = {what.encode(): text.encode() for what, text in texts.items()}

    def _note(self, line: bytes) -> Note | None:
        if self._openmetrics and line.startswith((b"# TYPE ", b"# HELP ", b"# UNIT ")):
            return openmetrics_lines.read_note(line)
        return read_note(line)

    def _keep(self, line: bytes, note: Note) -> None:
        if self.size > MAX_LINES_BYTES:
            self._lines, self.size = {}, 0
        self._lines[line] = note
        self.size += 2 * len(line)

    def _taken_in(self, note: Note) -> Metadata:
        """The metadata of a metric with what a note says of it."""
        if self.texts_size > MAX_TEXTS_BYTES:
            self._texts, self._metadata, self.texts_size = {}, {}, 0
        texts = self._texts.setdefault(note.metric, {})
        known = self._metadata.get(note.metric)
        if known is None or texts.get(note.what) != note.text:
            self.texts_size += len(note.metric) + 2 * len(note.text)
            texts[note.what], self._memory = note.text, None
            known = self._metadata[note.metric] = metadata_of(note.metric.decode(errors="replace"), texts)
        return known
