"""What a live tail asks for: conditions on events and on samples. They are values, so that tails that ask for the same
share the work, and a query worker can be handed one."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import BadInput
from streamgauge.model.events import Stream
from streamgauge.model.owned import client_name, owner_mark
from streamgauge.model.source import Matcher
from streamgauge.model.view import EVERYTHING, View

MAX_CONDITIONS = 32
"""Of one tail or rule. Each costs a pass over what is stored while somebody listens."""
MAX_CONDITION_BYTES = 1024
"""Of one condition. RE2 takes time in proportion to the text, but memory in proportion to the expression."""

_TERM = re.compile(r"([^\s=!<>~]+)\s*(==|=~|!=|!~|>=|<=|=|>|<|~)\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class Op(enum.Enum):
    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"
    AT_LEAST = ">="
    AT_MOST = "<="
    MATCH = "~"
    NOT_MATCH = "!~"

    @property
    def negative(self) -> bool:
        """Whether what lacks the field fulfils it."""
        return self in (Op.NOT_EQUAL, Op.NOT_MATCH)


_OPS = {op.value: op for op in Op} | {"==": Op.EQUAL, "=~": Op.MATCH}


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """A condition on a member of the payload: `path` from its root down, or one member that is called so with dots.

    number: what the text means as a number; None where it means none.
    """

    path: tuple[str, ...]
    op: Op
    text: str
    number: float | None = None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Events that fulfil all of it. streams: numbers or names, of which any will do; none is all of them. texts: parts
    of the payload as JSON. view: whoever asks for it sees events of no other streams."""

    streams: tuple[str, ...] = ()
    terms: tuple[FieldTerm, ...] = ()
    texts: tuple[str, ...] = ()
    view: View = EVERYTHING

    @property
    def of_all_streams(self) -> bool:
        return not self.streams and self.view.owner is None

    def sees_stream(self, stream: Stream) -> bool:
        return self.view.owner is None or stream.headers.startswith(owner_mark(self.view.owner))

    def wants_stream(self, stream: Stream) -> bool:
        return self.sees_stream(stream) and self.names_stream(stream.id, stream.name)

    def names_stream(self, number: int, name: str) -> bool:
        """name: as the store has it."""
        return not self.streams or str(number) in self.streams or (bool(name) and client_name(name) in self.streams)


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Samples of series that fulfil any of the sets of matchers; no sets are all series. view: of whoever asks for it,
    which the sets hold to."""

    matchers: tuple[tuple[Matcher, ...], ...] = ()
    view: View = EVERYTHING


Filter = EventFilter | SampleFilter


def sample_filter(sets: Sequence[Sequence[Matcher]], view: View = EVERYTHING) -> SampleFilter:
    if view.labels:
        sets = [(*view.matchers, *matchers) for matchers in sets or [()]]
    return SampleFilter(tuple(map(tuple, sets)), view)


def event_filter(
    streams: Sequence[str], fields: Sequence[str], texts: Sequence[str], view: View = EVERYTHING
) -> EventFilter:
    """From what somebody wrote. Raises BadInput."""
    conditions = [*streams, *fields, *texts]
    if len(conditions) > MAX_CONDITIONS:
        raise BadInput(f"there may be at most {MAX_CONDITIONS} conditions")
    for text in conditions:
        if not text:
            raise BadInput("a condition is empty; write for example stream=12, level=ERROR or text=timeout")
        if len(text.encode()) > MAX_CONDITION_BYTES:
            raise BadInput(f"a condition has at most {MAX_CONDITION_BYTES} bytes")
    return EventFilter(tuple(sorted(set(streams))), tuple(map(parse_term, fields)), tuple(texts), view)


def parse_term(text: str) -> FieldTerm:
    """As in level=ERROR, http.status>=500 or message~"time ?out". Raises BadInput."""
    found = _TERM.fullmatch(text.strip())
    if found is None or not all(path := tuple(found[1].split("."))):
        raise BadInput(
            f"{_shown(text)} is no condition; write for example level=ERROR, http.status>=500 or message~time"
        )
    op, value = _OPS[found[2]], found[3]
    if (written := _quoted(value)) is not None:
        term = FieldTerm(path, op, written)
    else:
        term = FieldTerm(path, op, value, float(value) if _NUMBER.fullmatch(value) else None)
    if op in (Op.MATCH, Op.NOT_MATCH):
        check_regex(term.text)
    return term


def check_regex(regex: str) -> None:
    """Raises BadInput for what RE2 does not take."""
    try:
        pc.match_substring_regex(pa.array([""]), regex)
    except pa.ArrowInvalid as error:
        raise BadInput(f"invalid regular expression {_shown(regex)}: {error}") from None


def _quoted(value: str) -> str | None:
    """A value in double quotes is a text, whatever it looks like."""
    if len(value) < 2 or not value.startswith('"'):
        return None
    try:
        text = json.loads(value)
    except ValueError:
        raise BadInput(f"{_shown(value)} begins with a quote and is no JSON string") from None
    return text if isinstance(text, str) else None


def _shown(text: str) -> str:
    return f'"{text[:100]}…"' if len(text) > 100 else f'"{text}"'
