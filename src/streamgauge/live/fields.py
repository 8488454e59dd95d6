"""Where a field of a payload is."""

from __future__ import annotations

from typing import Any

from streamgauge.model.event_source import Path


class _Absent:
    """The value of a field that a payload does not have."""


ABSENT = _Absent()


def field_of(payload: Any, path: Path) -> Any:
    """What a payload has at a path; else, what it has under that name with dots; else ABSENT."""
    found = payload
    for member in path:
        if not isinstance(found, dict) or member not in found:
            return payload.get(".".join(path), ABSENT) if isinstance(payload, dict) else ABSENT
        found = found[member]
    return found
