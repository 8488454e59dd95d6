"""The note of how far an import is, and what is said on the way."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

from streamgauge.commands.importer.blocks import Position
from streamgauge.commands.importer.progress import Progress, beyond_default, size_text, summary, too_old
from streamgauge.commands.importer.state import MAX_EXAMPLES, Saved, StateFile, Tally, identity_of, state_folder
from streamgauge.store.ports import DAY_MS


def saved() -> Saved:
    return Saved(Position(5, 2), Tally(7, Counter(x=1), {"x": ["line 1"]}, -3), {"notes": {}})


def test_a_note_is_read_back(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "a" / "b", {"size": 1}, "f", "server")
    assert file.load() is None
    file.save(saved())
    assert StateFile(tmp_path / "a" / "b", {"size": 1}, "f", "server").load() == saved()
    assert [path.suffix for path in file.path.parent.iterdir()] == [".json"]
    file.remove()
    file.remove()
    assert file.load() is None


def test_a_note_about_something_else_does_not_count(tmp_path: Path) -> None:
    StateFile(tmp_path, {"size": 1}, "f", "server").save(saved())
    assert StateFile(tmp_path, {"size": 2}, "f", "server").load() is None
    assert StateFile(tmp_path, {"size": 1}, "f", "another").load() is None
    assert StateFile(tmp_path, {"size": 1}, "fs", "erver").load() is None


def test_a_damaged_note_does_not_count(tmp_path: Path) -> None:
    file = StateFile(tmp_path, {"size": 1}, "f")
    for text in (
        "",
        "[]",
        '{"identity": {"size": 1, "version": 1}}',
        '{"identity": {"size": 1, "version": 1}, "tally": {"x": 1}}',
    ):
        file.path.write_text(text)
        assert file.load() is None


def test_where_notes_are_kept(tmp_path: Path) -> None:
    assert state_folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "streamgauge" / "import"
    assert state_folder({"XDG_STATE_HOME": "relative"}).is_relative_to(Path.home())


def test_a_file_that_changes_is_another(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1")
    first = identity_of(file)
    os.utime(file, ns=(1, 1))
    assert identity_of(file) != first
    folder = identity_of(tmp_path)
    (tmp_path / "g").write_bytes(b"1")
    assert identity_of(tmp_path) != folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_line_that_is_kept_up_to_date() -> None:
    now, out = [0.0], Terminal()
    progress = Progress("f", 4000, 100, lambda: now[0], out)
    progress.update(1000, 100)
    now[0] = 10.0
    progress.update(2000, 1_000_100)
    assert out.getvalue().endswith("\r\x1b[Kf:  50% of 4.0 kB, 1,000,100 samples, 100,000/s, 20s left")
    written = len(out.getvalue())
    now[0] = 10.1
    progress.update(2100, 1_000_200)
    assert len(out.getvalue()) == written, "not more often than anybody can read"
    progress.say("a\x1bword")
    assert out.getvalue().endswith("\r\x1b[Ka\\x1bword\n")


def test_a_pipe_has_only_lines_that_stay() -> None:
    out = io.StringIO()
    progress = Progress("f", None, 0, lambda: 1.0, out)
    progress.update(1000, 100)
    progress.say("going on")
    progress.clear()
    assert out.getvalue() == "going on\n"
    assert progress.line(1_500_000, 5) == "f: 1.5 MB, 5 samples, 5,000/s"


def test_the_account_of_a_file() -> None:
    tally = Tally(stored=1500)
    tally.refuse("too_old", 20)
    for number in range(20):
        tally.example("too_old", f"line {number}: old")
    tally.faults.append("no end")
    lines = summary("f", tally, 3, 500, 10.0)
    assert lines[0] == "f: 1,500 samples of 3 series stored in 10.0 s (100 a second), 500 of them by earlier runs"
    assert lines[1] == "  not stored, too_old: 20"
    assert lines[2] == "    line 0: old"
    assert len(lines) == 3 + MAX_EXAMPLES
    assert lines[-1] == "  no end"


def test_what_retention_means_is_said() -> None:
    now = 1000 * DAY_MS
    assert "--retention 101d " in too_old("line 5: old", now - 100 * DAY_MS - 1, now)
    assert beyond_default(now - 14 * DAY_MS, now) is None
    assert beyond_default(None, now) is None
    assert "--retention 30d " in str(beyond_default(now - 30 * DAY_MS, now))


def test_sizes_as_people_read_them() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 123_456, 5 * 10**9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "5.0 GB",
    ]
