"""What a server says of itself in its metrics."""

from __future__ import annotations

from streamgauge.stats import Stats


def reading(stats: Stats, name: str, **labels: str) -> float:
    """The sum of the samples of that name that have these labels, and maybe others."""
    return sum(
        value
        for family in stats.families()
        for sample, pairs, value in family.samples
        if sample == name and labels.items() <= dict(pairs).items()
    )
