"""What /metrics says of destinations of samples."""

from __future__ import annotations

from streamgauge.stats import Stats


class Numbers:
    """Counters of all destinations; the first label is a destination's name."""

    def __init__(self, stats: Stats) -> None:
        self.samples = stats.counter("remote_write_samples", "Samples that a destination has taken.", "remote")
        self.failed = stats.counter(
            "remote_write_samples_failed", "Samples that a destination refused, and that are not sent again.", "remote"
        )
        self.dropped = stats.counter(
            "remote_write_samples_dropped",
            "Samples that are not sent: relabelled, too_old, series_gone, removed, unreadable, unwritable.",
            "remote",
            "reason",
        )
        self.retried = stats.counter(
            "remote_write_samples_retried", "Samples of requests that failed and are sent again.", "remote"
        )
        self.metadata = stats.counter("remote_write_metadata", "Metadata that a destination has taken.", "remote")
        self.metadata_failed = stats.counter(
            "remote_write_metadata_failed", "Metadata that a destination did not take.", "remote"
        )
        self.bytes = stats.counter("remote_write_bytes", "Bytes of bodies sent, compressed.", "remote")
        self.seconds = stats.histogram(
            "remote_write_sent_batch_duration", "From a request to its answer, of any status.", "remote"
        )
