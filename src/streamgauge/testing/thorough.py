"""How much the tests try: enough to notice what broke, or by `make thorough` and `make fuzz` all there is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def thorough() -> bool:
    """Whether every case is to be tried, for however long that takes."""
    return os.environ.get("HYPOTHESIS_PROFILE") in ("thorough", "long")


def some_of(cases: Sequence[T], every: int, first: int = 0) -> list[T]:
    """Each of them where tests are thorough; else one in `every`, from number `first` on."""
    return list(cases if thorough() else cases[first::every])


def examples(number: int) -> int:
    """Of a property whose examples are dear: ten times as many where tests are thorough, else a third."""
    return number * 10 if thorough() else max(5, number // 3)
