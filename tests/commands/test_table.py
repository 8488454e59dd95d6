"""Tables: aligned, whole, and harmless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamgauge.commands.table import printable, table


def test_columns_are_as_wide_as_their_content() -> None:
    rows = [("a" * 150, "1"), ("温度", "1,000")]
    lines = list(table(("name", "count"), rows, numbers=(1,)))
    assert lines[0] == "name" + " " * 148 + "count"
    assert lines[1] == "a" * 150 + "      1"
    assert lines[2] == "温度" + " " * 148 + "1,000"


@given(st.text())
def test_nothing_printed_commands_a_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not text.isprintable() or shown == text
