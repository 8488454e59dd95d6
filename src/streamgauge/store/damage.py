"""What is said of something that could not be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Damage:
    """Something on disk that could not be read, and was set aside."""

    path: str
    what: str  # a sentence: what is wrong, what was kept, what is lost
