"""Metadata in files: what was said last counts, however often it was said before."""

from __future__ import annotations

import pytest

from streamgauge.wire import notes as notes_module
from streamgauge.wire.findings import MAX_METADATA_BYTES, Findings, Reason
from streamgauge.wire.notes import Notes


def read(notes: Notes, *lines: str) -> Findings:
    findings = Findings()
    for number, line in enumerate(lines, 1):
        notes.read(line.encode(), number, findings)
    return findings


def test_what_was_said_last_counts() -> None:
    notes = Notes(openmetrics=False)
    assert read(notes, "# TYPE a counter", "# HELP a One.").metadata["a"].help == "One."
    assert read(notes, "# TYPE a gauge").metadata["a"].type == "gauge"
    again = read(notes, "# TYPE a counter").metadata["a"]
    assert (again.type, again.help) == ("counter", "One."), "a line that was known before says the same again"
    assert read(notes, "# HELP a Two.", "# TYPE a counter").metadata["a"].help == "Two."
    assert notes.memory["notes"] == {"a": {"TYPE": "counter", "HELP": "Two."}}


def test_a_label_is_a_number_where_the_type_says_so() -> None:
    notes = Notes(openmetrics=True)
    assert notes.float_label(b"h_bucket") is None
    read(notes, "# TYPE h histogram", "# TYPE s summary", "# EOF")
    assert notes.float_label(b"h_bucket") == b"le"
    assert notes.float_label(b"s") == b"quantile"
    assert notes.float_label(b"h_other") is None
    assert notes.ended


def test_what_is_wrong_is_refused_each_time() -> None:
    notes = Notes(openmetrics=True)
    for _ in range(2):
        findings = read(notes, "# TYPE a nonsense", "# a comment", f"# HELP a {'x' * MAX_METADATA_BYTES}")
        assert findings.refused == {Reason.METADATA: 1}
        assert not findings.metadata


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes_module, "MAX_LINES_BYTES", 1000)
    monkeypatch.setattr(notes_module, "MAX_TEXTS_BYTES", 1000)
    notes = Notes(openmetrics=False)
    for number in range(100):
        assert read(notes, f"# HELP a{number} Number {number}.").metadata[f"a{number}"].help == f"Number {number}."
        assert max(notes.size, notes.texts_size) <= 1000 + 2 * 25
    assert 0 < len(notes.memory["notes"]) < 100
