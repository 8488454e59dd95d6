"""A log line is one line, and says the same to people and to programs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from streamgauge import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("streamgauge")
    before = root.handlers[:], root.level, ours.level
    yield io.StringIO()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_a_message_can_forge_no_line_and_command_no_terminal(stream: io.StringIO) -> None:
    logs.configure("info", "text", stream)
    logging.getLogger("streamgauge.main").warning(
        "bad metric %s", "a\n2026-01-01 all is well\x1b[2J\x9b", extra={"n": 1}
    )
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"WARNING main: bad metric a\n2026-01-01 all is well\x1b[2J\x9b n=1")


def test_json_has_the_same_fields(stream: io.StringIO) -> None:
    logs.configure("warning", "json", stream)
    log = logging.getLogger("streamgauge.store.log")
    log.info("not severe enough")
    log.warning("grün\n", extra={"bytes": 3})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {"level": "warning", "logger": "store.log", "message": "grün\n", "bytes": 3}


def test_the_trace_of_a_bug_follows_its_line(stream: io.StringIO) -> None:
    logs.configure("error", "text", stream)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("streamgauge").exception("a bug")
    first, *_, last = stream.getvalue().splitlines()
    assert first.endswith("streamgauge: a bug")
    assert last == "ValueError: why"
