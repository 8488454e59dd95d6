"""A log line is one line, and says the same to people and to programs."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

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


def test_the_journal_gets_priorities_and_no_times(stream: io.StringIO) -> None:
    logs.configure("info", "journal", stream)
    log = logging.getLogger("streamgauge.store.log")
    log.info("one\n<0>forged", extra={"bytes": 3})
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("a bug")
    first, second, *trace = stream.getvalue().splitlines()
    assert first == r"<6>store.log: one\n<0>forged bytes=3"
    assert second == "<3>store.log: a bug"
    assert trace[-1] == "<3>ValueError: why"
    assert all(line.startswith("<3>") for line in trace)


def test_only_the_stream_that_the_journal_gave_us_leads_to_it(tmp_path: Path) -> None:
    with (tmp_path / "given").open("w") as given, (tmp_path / "redirected").open("w") as redirected:
        status = os.fstat(given.fileno())
        environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert logs.is_journal(given, environment)
        assert not logs.is_journal(redirected, environment)
        assert not logs.is_journal(given, {})
        assert not logs.is_journal(io.StringIO(), environment)
