"""What `streamgauge tail` makes of words, events and keys."""

from __future__ import annotations

import pytest

from streamgauge.commands.tail import parameter_of
from streamgauge.commands.tail_lines import event_line, printable, sample_line
from streamgauge.commands.tail_screen import Screen

TIME = "2026-11-26T18:24:24.123456789Z"


@pytest.mark.parametrize(
    ("word", "kind", "expected"),
    [
        ("level=ERROR", "events", ("filter", "level=ERROR")),
        ("http.status>=500", "events", ("filter", "http.status>=500")),
        ("message~time.*out", "events", ("filter", "message~time.*out")),
        ("stream=12", "events", ("stream", "12")),
        (".stream=12", "events", ("filter", "stream=12")),
        ("text=a=b", "events", ("text", "a=b")),
        ("timeout", "events", ("text", "timeout")),
        ('up{job="api"}', "samples", ("match", 'up{job="api"}')),
        ('match={job="api"}', "samples", ("match", '{job="api"}')),
    ],
)
def test_words_are_filters(word: str, kind: str, expected: tuple[str, str]) -> None:
    assert parameter_of(word, kind) == expected


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"level": "ERROR", "message": "no room", "n": 1}, "ERROR no room n=1"),
        ({"severity": "warn", "msg": "x", "http": {"n": 503, "path": "/a b"}}, 'warn  x http.n=503 http.path="/a b"'),
        ({"level": 3, "tags": ["a", None], "empty": {}, "none": ""}, 'level=3 tags=["a",null] empty={} none=""'),
        ({"message": "two\nlines \x1b[31mred\u202e"}, "two\\nlines \\u001b[31mred\\u202e"),
        ("a text", '"a text"'),
        ([1, 2.5], "[1,2.5]"),
    ],
)  # fmt: skip
def test_an_event_is_one_line(payload: object, line: str) -> None:
    assert event_line({"time": TIME, "payload": payload}, False) == f"2026-11-26 18:24:24.123 {line}"


def test_levels_have_colours_where_these_are_wanted() -> None:
    line = event_line({"time": TIME, "payload": {"level": "ERROR", "n": 1}}, True)
    assert "\x1b[31mERROR" in line
    assert "\x1b[36mn=\x1b[0m1" in line


def test_a_large_event_is_named() -> None:
    assert "(2097163 bytes" in event_line({"time": TIME, "payload": None, "payload_bytes": 2_097_163}, False)


def test_a_sample_is_one_line() -> None:
    labels = {"__name__": "up", "job": "a\n"}
    assert sample_line({"labels": labels, "time": TIME, "value": "NaN"}, False).endswith(' up{job="a\\n"} NaN')
    assert sample_line({"labels": {"__name__": "up"}, "time": TIME, "value": 1}, False).endswith(" up 1")


def test_what_is_printable_stays() -> None:
    assert printable("é 漢 ü") == "é 漢 ü"


class Output:
    def __init__(self, held_lines: int = 3) -> None:
        self.text = ""
        self.said: list[str] = []
        self.screen = Screen(self.write, self.said.append, held_lines)

    def write(self, text: str) -> None:
        self.text += text


def test_space_pauses_and_goes_on() -> None:
    output = Output()
    output.screen.show(["a"])
    output.screen.key(b" ")
    output.screen.show(["b"])
    output.screen.key(b"x")
    assert output.text == "a\n"
    assert "paused" in output.said[0]
    output.screen.key(b" ")
    output.screen.show(["c"])
    assert output.text == "a\nb\nc\n"


def test_a_long_pause_keeps_the_latest_and_says_how_many_are_missing() -> None:
    output = Output()
    output.screen.key(b" ")
    output.screen.show(["1", "2"])
    output.screen.show(["3", "4", "5"])
    output.screen.key(b" ")
    assert output.text == "3\n4\n5\n"
    assert output.said[-1].startswith("2 lines came")
