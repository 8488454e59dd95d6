"""What of the stored data somebody may see."""

from __future__ import annotations

from dataclasses import dataclass

from streamgauge.model.source import Matcher, MatchOp


@dataclass(frozen=True, slots=True)
class View:
    """labels: names and values that every series seen has; none of them: all series are seen. owner: whose event
    streams are seen; None: all streams are. Picklable: it goes to the query workers with each job."""

    labels: tuple[tuple[str, str], ...] = ()
    owner: str | None = None

    @property
    def whole(self) -> bool:
        return not self.labels and self.owner is None

    @property
    def matchers(self) -> tuple[Matcher, ...]:
        """What every series that is seen fulfils."""
        return tuple(Matcher(name, MatchOp.EQUAL, value) for name, value in self.labels)


EVERYTHING = View()
