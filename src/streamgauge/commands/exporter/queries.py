"""The SELECTs of an export: what is wanted, in a window of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamgauge.model.source import Matcher, MatchOp

Parameters = dict[str, str | int]

_EVENTS = "SELECT * FROM events WHERE {}"
_SAMPLES = "SELECT name, labels, time, value FROM metrics WHERE {}"
_OPERATORS = {
    MatchOp.EQUAL: "{} = {}",
    MatchOp.NOT_EQUAL: "{} <> {}",
    MatchOp.MATCH: "regexp_full_match({}, {}, 's')",
    MatchOp.NOT_MATCH: "NOT regexp_full_match({}, {}, 's')",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """events: those, or samples. selectors: of which one must match; none is all. where: a condition, "" for none."""

    events: bool
    selectors: Sequence[Sequence[Matcher]] = ()
    where: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    query: str
    parameters: Parameters = field(default_factory=dict)


def questions(wanted: Wanted, start: int, stop: int) -> list[Question]:
    """What gives all that is wanted from `start` on and before `stop` (ms), each row once."""
    time = "insert_datetime" if wanted.events else "time"
    window = [f"{time} >= make_timestamptz($from_ms * 1000)", f"{time} < make_timestamptz($to_ms * 1000)"]
    if wanted.where:
        window.append(f"(\n{wanted.where}\n)")
    form = _EVENTS if wanted.events else _SAMPLES
    asked = []
    for number in range(max(len(wanted.selectors), 1)):
        parameters: Parameters = {"from_ms": start, "to_ms": stop}
        conditions = [*window]
        if wanted.selectors:
            conditions += _matching(wanted.selectors[number], f"s{number}", parameters, narrow=True)
        for earlier in range(number):
            matched = " AND ".join(_matching(wanted.selectors[earlier], f"s{earlier}", parameters)) or "true"
            conditions.append(f"NOT ({matched})")
        asked.append(Question(form.format(" AND ".join(conditions)), parameters))
    return asked


def _matching(matchers: Sequence[Matcher], prefix: str, parameters: Parameters, narrow: bool = False) -> list[str]:
    """Conditions. They are never null, unless they are written so that they narrow what is read."""
    conditions = []
    for number, matcher in enumerate(matchers):
        value, label = f"{prefix}_value{number}", f"{prefix}_label{number}"
        parameters[value] = matcher.value
        column = "name"
        if matcher.name != "__name__":
            parameters[label] = matcher.name
            column = f"labels[${label}]"
        plain = narrow and matcher.op is MatchOp.EQUAL and matcher.value
        compared = column if plain else f"coalesce({column}, '')"
        conditions.append(_OPERATORS[matcher.op].format(compared, f"${value}"))
    return conditions
