"""What a live value is called elsewhere."""

from __future__ import annotations

import re

import pytest

from streamgauge.forward.live.target import LiveValue, placed


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a/b", "a_b"),
        ("a\x00\x1f\x7f\x85\x9f", "a_____"),
        ("\ufdd0\uffff\U0001fffe\U0010ffff!", "____!"),
        ("\u00e4" * 200, "\u00e4" * 127),
        ("", "_"),
    ],
)
def test_a_part_of_a_topic_holds_what_every_broker_takes(name: str, part: str) -> None:
    value = LiveValue("web", "c", name, "1", (), 0)
    assert placed("x/{host}/{name}", value, re.compile("/")) == f"x/web/{part}"
