"""How old the samples of the latest commits are: for a reader that knows a commit and has rows of many."""

from __future__ import annotations

from streamgauge.store.ports import FIRST_TIME, LAST_TIME

MAX_STRETCHES = 2048
"""Of commits that are told apart. When there are more, neighbours are put together."""


class CommitTimes:
    """Called on the event loop's thread. known_after: of this commit and those before nothing is known."""

    def __init__(self, known_after: int) -> None:
        self._known_after = known_after
        self._stretches: list[tuple[int, int]] = []  # last commit, and the oldest time of the stretch

    def note(self, commit: int, oldest: int) -> None:
        """The oldest time, ms, of a commit's samples. Commits ascend."""
        self._stretches.append((commit, oldest))
        if len(self._stretches) > MAX_STRETCHES:
            pairs = zip(self._stretches[::2], self._stretches[1::2], strict=False)
            last = self._stretches[-1:] if len(self._stretches) % 2 else []
            self._stretches = [(second[0], min(first[1], second[1])) for first, second in pairs] + last

    def oldest_after(self, commit: int) -> int:
        """No sample of a later commit is older than this, ms."""
        if commit < self._known_after:
            return FIRST_TIME
        return min((oldest for last, oldest in self._stretches if last > commit), default=LAST_TIME)
