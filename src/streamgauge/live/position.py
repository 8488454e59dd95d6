"""Where a live tail stands, as its client hands it back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from streamgauge.errors import BadInput

_POSITION = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z(?:/(\d{1,19}))?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Position:
    """After the event with this time and index, or, without an index, from this time on. Of samples, a time alone."""

    time: int  # ns since the Unix epoch
    index: int = 0

    def __str__(self) -> str:
        whole, fraction = divmod(self.time, 10**9)
        clock = (_EPOCH.fromtimestamp(whole, UTC)).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{clock}.{fraction:09d}Z/{self.index}"

    @staticmethod
    def parse(text: str) -> Position | None:
        """A position, or a time in UTC; None for anything else."""
        found = _POSITION.fullmatch(text)
        if found is None:
            return None
        try:
            clock = datetime.fromisoformat(f"{found[1]}+00:00")
        except ValueError:
            raise BadInput(f'"{text}" is no time') from None
        seconds = (clock - _EPOCH).days * 86_400 + (clock - _EPOCH).seconds
        time = seconds * 10**9 + int((found[2] or "0").ljust(9, "0"))
        if not -_MAX < time < _MAX:
            raise BadInput(f'"{text}" is beyond what a time may be')
        return Position(time, min(int(found[3] or 0), _MAX))
