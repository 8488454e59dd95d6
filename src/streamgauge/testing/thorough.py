"""How much the tests try: enough to notice what broke, or by `make fuzz` all there is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def thorough() -> bool:
    """Whether every case is to be tried, for however long that takes."""
    return os.environ.get("HYPOTHESIS_PROFILE") == "long"


def some_of(cases: Sequence[T], every: int, first: int = 0) -> list[T]:
    """Each of them where tests are thorough; else one in `every`, from number `first` on."""
    return list(cases if thorough() else cases[first::every])
