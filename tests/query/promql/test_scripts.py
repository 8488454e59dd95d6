"""Language tests as data: scripts that load series and state what expressions give.

The language is that of Prometheus' promqltest: `load STEP`, `clear`, `eval instant at T EXPR`, `eval range from A to B
step C EXPR`, expectations indented below. Native histograms (`{{…}}`) are not understood: evals after loading some are
only required not to crash.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from streamgauge.errors import StreamgaugeError
from streamgauge.model.arrays import stale_marker
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.steps import Grid
from streamgauge.query.result import Evaluation, Matrix, RangeVector, Scalar, String, Vector
from streamgauge.testing import MemorySource

HERE = Path(__file__).parent
UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
NUMBER = r"[+-]?(?:0x[0-9a-fA-F]+|[Ii]nf|[Nn]a[Nn]|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
QUOTED = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`'
EVAL = re.compile(r"eval(?:_(\w+))? (?:instant at (\S+)|range from (\S+) to (\S+) step (\S+)) (.*)")
NOT_UNDERSTOOD = {
    # Grammar that the parser package lacks, by a piece of the expression.
    "anchored",
    "smoothed",
    "</",
    ">/",
    "start_timestamp",
}

Labels = tuple[tuple[str, str], ...]
Loaded = tuple[dict[str, str], list[int], np.ndarray]
Row = tuple[Labels, list[float | None], bool]


class NativeHistogram(Exception):
    pass


def shared_scripts() -> list[Path]:
    folder = os.environ.get("STREAMGAUGE_SHARED")
    places = [Path(folder)] if folder else [parent / "shared" for parent in HERE.parents]
    found = next((place for place in places if (place / "data" / "promqltest").is_dir()), None)
    return sorted((found / "data" / "promqltest").glob("*.test")) if found else []


def canonical(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def milliseconds(text: str) -> int:
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(NUMBER, body):
        return sign * round(float(body) * 1000)
    return sign * sum(int(amount) * UNIT_MS[unit] for amount, unit in re.findall(r"(\d+)(ms|[smhdwy])", body))


def unquoted(text: str) -> str:
    return text[1:-1] if text[0] == "`" else str(ast.literal_eval(text))


def number(text: str) -> float:
    return float(int(text, 16)) if "0x" in text.lower() else float(text)


def points(text: str) -> list[float | None]:
    """`1+2x3 _ stale` as numbers, None (no point) and STALE, as a signalling NaN does not survive a Python float."""
    if "{{" in text:
        raise NativeHistogram
    result: list[float | None] = []
    for token in text.split("#")[0].split():
        value, times, step = token, 1, 0.0
        if expanded := re.fullmatch(rf"(_|stale|{NUMBER})(?:([+-])({NUMBER}))?x(\d+)", token):
            value, times = expanded[1], int(expanded[4]) + (expanded[1] != "_")
            step = 0.0 if expanded[2] is None else number(expanded[3]) * (-1 if expanded[2] == "-" else 1)
        if value in ("_", "stale"):
            result += [None if value == "_" else STALE] * times
        else:
            result += [number(value) + i * step for i in range(times)]
    return result


STALE = 1.2345e-300


def series(line: str) -> tuple[dict[str, str], str]:
    labels: dict[str, str] = {}
    if name := re.match(r"[a-zA-Z_:][\w:]*", line):
        labels["__name__"] = name[0]
    at = name.end() if name else 0
    if line[at : at + 1] == "{" and line[at : at + 2] != "{{":
        at += 1
        while (at := len(line) - len(line[at:].lstrip())) and line[at] != "}":
            pair = re.match(rf"([a-zA-Z_][\w.]*|{QUOTED})\s*(?:=\s*({QUOTED}))?\s*,?", line[at:])
            assert pair, line
            label = unquoted(pair[1]) if pair[1][0] in "\"'`" else pair[1]
            labels.update({label: unquoted(pair[2])} if pair[2] else {"__name__": label})
            at += pair.end()
        at += 1
    return labels, line[at:].strip()


@dataclass
class Case:
    """One eval of a script."""

    place: str
    expr: str
    grid: Grid
    instant: bool
    expects: list[str]
    rows: list[Row]
    source: MemorySource
    tainted: bool  # native histograms are missing from the data or from what is expected


@dataclass
class Script:
    path: Path
    loaded: list[Loaded] = field(default_factory=list)
    tainted: bool = False

    def cases(self) -> Iterator[Case]:
        for place, line, block in self._commands():
            if line.startswith("clear"):
                self.loaded, self.tainted = [], False
            elif line.startswith("load"):
                self._load(line, block)
            elif parsed := EVAL.match(line):
                yield self._case(place, parsed, block)

    def _commands(self) -> Iterator[tuple[str, str, list[str]]]:
        command: tuple[str, str, list[str]] | None = None
        for at, text in enumerate(self.path.read_text(encoding="utf-8").split("\n"), 1):
            stripped = text.strip()
            if stripped.startswith("#"):
                continue
            if command and stripped and text[0] in " \t":
                command[2].append(stripped)
                continue
            if command:
                yield command
            command = (f"{self.path.name}:{at}", stripped, []) if stripped else None
        if command:
            yield command

    def _load(self, line: str, block: list[str]) -> None:
        self.tainted |= "nhcb" in line
        step = milliseconds(line.split()[1])
        for text in block:
            labels, rest = series(text)
            try:
                given = points(rest)
            except NativeHistogram:
                self.tainted = True
                continue
            times = [i * step for i, value in enumerate(given) if value is not None]
            values = np.array([value for value in given if value is not None])
            values[values == STALE] = stale_marker()
            if times:
                self.loaded.append((labels, times, values))

    def _case(self, place: str, parsed: re.Match[str], block: list[str]) -> Case:
        variant, at, start, end, step, expr = parsed.groups()
        expects = [text.removeprefix("expect ") for text in block if text.startswith("expect")]
        rows: list[Row] = []
        tainted = self.tainted
        for text in block:
            if text.startswith("expect"):
                continue
            bare = re.match(rf"({NUMBER}|_)(\s|$)", text)
            labels, rest = ({}, text) if bare else series(text)
            try:
                rows.append((canonical(labels), points(rest), bool(bare)))
            except NativeHistogram:
                tainted = True
        grid = Grid.instant(milliseconds(at)) if at else steps(start, end, step)
        source = MemorySource.of(merged(self.loaded))
        return Case(place, expr, grid, bool(at), expects + ([variant] if variant else []), rows, source, tainted)


def steps(start: str, end: str, step: str) -> Grid:
    first, last, width = map(milliseconds, (start, end, step))
    return Grid(first, width, (last - first) // width + 1)


def merged(loaded: list[Loaded]) -> list[Loaded]:
    """One entry a series; of samples at the same time the later loaded wins."""
    result: dict[Labels, tuple[dict[str, str], dict[int, np.ndarray]]] = {}
    for labels, times, values in loaded:
        key = canonical(labels)
        _, samples = result.setdefault(key, (labels, {}))
        samples.update({time: values[i : i + 1] for i, time in enumerate(times)})
    return [
        (labels, sorted(samples), np.concatenate([samples[time] for time in sorted(samples)]))
        for labels, samples in result.values()
    ]


def same(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if a == b or math.isinf(a) or math.isinf(b):
        return a == b
    return abs(a - b) <= max(1e-6 * (abs(a) + abs(b)), 1e-300)


def shown(result: Vector | Matrix | RangeVector) -> dict[Labels, dict[int, float]]:
    found: dict[Labels, dict[int, float]] = {}
    for row, labels in enumerate(result.labels):
        key = canonical(labels)
        assert key not in found, f"two series {key}"
        if isinstance(result, Vector):
            found[key] = {result.time: float(result.values[row])}
        elif isinstance(result, Matrix):
            at = np.flatnonzero(result.present[row])
            found[key] = dict(zip(result.times[at].tolist(), result.values[row, at].tolist(), strict=True))
        else:
            of_row = slice(*result.samples.offsets[row : row + 2].tolist())
            found[key] = dict(
                zip(result.samples.times[of_row].tolist(), result.samples.values[of_row].tolist(), strict=True)
            )
    return found


def check(case: Case) -> str | None:
    """What is wrong with the answer, None if nothing is."""
    try:
        answer = evaluate(case.expr, case.source, case.grid, Budget(Limits()), instant=case.instant)
    except StreamgaugeError as error:
        return None if any(text.startswith("fail") for text in case.expects) else f"failed: {error.message}"
    if any(text.startswith("fail") for text in case.expects):
        return "should have failed"
    return wrong_notes(case, answer) or wrong_values(case, answer)


def wrong_notes(case: Case, answer: Evaluation) -> str | None:
    for text in case.expects:
        word, _, rest = text.partition(" ")
        given = answer.warnings if "warn" in word else answer.infos
        if word in ("warn", "info") and not given:
            return f"no {word}"
        if word in ("no_warn", "no_info") and given:
            return f"unexpected: {given[0]}"
        kind, _, message = rest.strip().partition(":")
        if word in ("warn", "info") and kind == "msg" and message.strip() not in given:
            return f"{message.strip()!r} is not in {given}"
        if word in ("warn", "info") and kind == "regex" and not any(re.search(message.strip(), one) for one in given):
            return f"nothing like {message.strip()!r} in {given}"
    return None


def wrong_values(case: Case, answer: Evaluation) -> str | None:
    result, grid = answer.result, case.grid
    for text in case.expects:
        if text.startswith("string"):
            ok = isinstance(result, String) and result.value == unquoted(text.removeprefix("string").strip())
            return None if ok else f"got {result}"
        if spans := re.match(r"range vector from (\S+) to (\S+) step (\S+)", text):
            grid = steps(*spans.groups())
    if isinstance(result, Scalar):
        ok = len(case.rows) == 1 and case.rows[0][2] and same(result.value, case.rows[0][1][0] or 0.0)
        return None if ok else f"got scalar {result.value}"
    if isinstance(result, String):
        return f"got {result}"
    want = {
        labels: {grid.first + i * grid.step: value for i, value in enumerate(values) if value is not None}
        for labels, values, _ in case.rows
    }
    want = {labels: values for labels, values in want.items() if values}
    got = shown(result)
    if got.keys() != want.keys():
        return f"series: got {sorted(got)} want {sorted(want)}"
    if case.instant and "ordered" in " ".join(case.expects) and list(got) != list(want):
        return f"order: got {list(got)}"
    for labels, values in want.items():
        if got[labels].keys() != values.keys():
            return f"{labels}: got times {sorted(got[labels])} want {sorted(values)}"
        for time, value in values.items():
            if not same(value, got[labels][time]):
                return f"{labels} at {time}: got {got[labels][time]!r} want {value!r}"
    return None


def run(path: Path) -> list[str]:
    failures = []
    for case in Script(path).cases():
        wrong = check(case)
        if wrong and not case.tainted and not any(piece in case.expr for piece in NOT_UNDERSTOOD):
            failures.append(f"{case.place}: {case.expr}\n    {wrong}")
    return failures


@pytest.mark.parametrize("path", sorted((HERE / "scripts").glob("*.test")), ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    assert not run(path)


@pytest.mark.skipif(not shared_scripts(), reason="Prometheus' own scripts are not here")
@pytest.mark.parametrize("path", shared_scripts(), ids=lambda path: path.stem)
def test_prometheus_script(path: Path) -> None:
    failures = run(path)
    assert not failures, "\n".join(failures)
