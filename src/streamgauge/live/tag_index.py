"""Which of all subscriptions a message fulfils, found without looking at most of those that it does not."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

Tags = frozenset[str]
Owner = TypeVar("Owner")


class TagIndex(Generic[Owner]):
    """A subscription stands under one of its tags: the one under which the fewest stood when it came. So tags that all
    messages have, as `metrics`, are no place for many."""

    def __init__(self) -> None:
        self._under: dict[str, dict[Tags, set[Owner]]] = {}
        self._places: dict[Tags, str] = {}

    def add(self, wanted: Tags, owner: Owner) -> None:
        """wanted: one tag at least."""
        place = self._places.get(wanted)
        if place is None:
            place = min(wanted, key=lambda tag: len(self._under.get(tag, ())))
            self._places[wanted] = place
        self._under.setdefault(place, {}).setdefault(wanted, set()).add(owner)

    def remove(self, wanted: Tags, owner: Owner) -> None:
        """One that was added."""
        place = self._places[wanted]
        owners = self._under[place][wanted]
        owners.discard(owner)
        if owners:
            return
        del self._places[wanted], self._under[place][wanted]
        if not self._under[place]:
            del self._under[place]

    def fulfilled(self, tags: AbstractSet[str]) -> set[Owner]:
        """Who has a subscription all of whose tags are among these."""
        found: set[Owner] = set()
        for tag in tags & self._under.keys():
            for wanted, owners in self._under[tag].items():
                if wanted <= tags:
                    found |= owners
        return found
