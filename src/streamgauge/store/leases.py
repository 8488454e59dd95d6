"""Who still reads what: a segment or a block goes when no query's snapshot names it any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Leases:
    """Counts readers by name. Used on the event loop's thread only."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._retired: dict[str, Callable[[], None]] = {}

    def acquire(self, names: Iterable[str]) -> Callable[[], None]:
        """Hold a lease on each name until the returned function is called; calling it again does nothing."""
        taken = list(names)
        gone = [name for name in taken if name in self._retired]
        if gone:
            raise AssertionError(f"{gone} were retired before this lease: the snapshot that names them is too old")
        for name in taken:
            self._held[name] = self._held.get(name, 0) + 1

        def release() -> None:
            while taken:
                self._release(taken.pop())

        return release

    def retire(self, name: str, dispose: Callable[[], None]) -> None:
        """Call `dispose` once nobody holds `name`: at once, or when the last lease ends. No new lease may follow."""
        if name in self._held:
            self._retired[name] = dispose
        else:
            dispose()

    @property
    def waiting(self) -> int:
        """Retired names that some reader still holds."""
        return len(self._retired)

    def _release(self, name: str) -> None:
        self._held[name] -= 1
        if self._held[name] == 0:
            del self._held[name]
            if dispose := self._retired.pop(name, None):
                dispose()
