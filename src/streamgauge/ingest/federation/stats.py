"""What is counted of pushes, beside what is counted of everything that comes in."""

from __future__ import annotations

from streamgauge.stats import Stats, Tally

UPLOAD = "upload"
RECEIVE = "receive"
"""How the ways of pushes are called in metrics."""

MISSING, SILENT = "missing", "silent"
"""Why series are marked as ended."""


class PushStats:
    """Made once for a server. `stats`: those that are shared by all that comes in."""

    def __init__(self, stats: Stats) -> None:
        self.shared = stats
        self.left_out = stats.counter(
            "push_left_out_samples", "Pushed samples not stored because no rule of the whitelist allows them.", "source"
        )
        self.limited = stats.counter(
            "push_rate_limited",
            "Pushes refused because their cluster pushes too often, by what was too much.",
            "source",
        )
        self.beyond = stats.counter(
            "push_beyond_limit",
            "Pushes refused because of a limit: bytes, series of a cluster, or clusters.",
            "source",
            "limit",
        )
        self.delayed = stats.counter(
            "push_delayed", "Pushes that waited for their turn, as their cluster pushes often.", "source"
        )
        self.overwritten = stats.counter(
            "push_overwritten_timestamps", "Timestamps overwritten: more than 5 min old, ahead, or present.", "tense"
        )
        self.markers = stats.counter(
            "push_stale_markers", "Series marked as ended: missing from a push, or the cluster silent.", "cause"
        )
        for cause in (MISSING, SILENT):
            self.markers.labels(cause)  # there from the start
        self.layouts = stats.counter(
            "push_layouts", "Uploads by how far they repeat the one before: same, similar or new.", "outcome"
        )
        self.receives = Tally(stats, RECEIVE, 200)
        self.repeats = Tally(stats, UPLOAD, 200, (self.layouts.labels("same"),))
