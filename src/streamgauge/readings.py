"""What /metrics says of the store and the query workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields

from streamgauge.durations import format_duration
from streamgauge.query.pool import WorkerPool
from streamgauge.stats import Reading
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.pins import Pins
from streamgauge.store.ports import BlockMeta
from streamgauge.store.refusals import LIMITS
from streamgauge.store.resolutions import thinned
from streamgauge.store.store import Store

_OF_WORKERS = {
    "answered": "Queries answered whole, with an error of their own counted.",
    "refused": "Queries refused because too many were waiting.",
    "canceled": "Queries stopped by request, or because their client went away.",
    "timed_out": "Queries stopped because their time was used up.",
    "killed": "Workers killed because they did not stop when told to, or outgrew their memory.",
    "died": "Workers that ended by themselves.",
    "recycled": "Workers replaced because they kept too much memory.",
    "started": "Workers started.",
    "waiting": "Queries that wait for a worker.",
    "running": "Queries that run.",
    "workers": "Worker processes there are.",
}
_NOW = {"waiting", "running", "workers"}


def store_readings(store: Store, maintenance: Maintenance) -> Iterator[Reading]:
    """Sizes and totals of the store."""
    state = store.state
    yield Reading.of("streamgauge_head_samples", "gauge", "Samples in memory.", store.head.rows)
    yield Reading.of("streamgauge_head_series", "gauge", "Series in the index.", store.index.series)
    yield Reading.of("streamgauge_index_bytes", "gauge", "Memory of the series index.", store.index.used_bytes)
    yield Reading(
        "streamgauge_new_series_refused_total",
        "counter",
        "New series refused, each as often as it was sent, because a metric, a label or the index is full.",
        {(limit,): store.refusals.totals[limit] for limit in LIMITS},
        ("limit",),
    )
    yield Reading.of(
        "streamgauge_samples_appended_total", "counter", "Samples made durable since the start.", store.samples_appended
    )
    yield Reading.of("streamgauge_commits_total", "counter", "Commits ever made to this folder.", state.commit)
    yield Reading.of("streamgauge_queued_samples", "gauge", "Samples on their way to the disk.", store.queued_rows)
    yield Reading.of("streamgauge_blocks", "gauge", "Blocks on disk.", len(state.blocks))
    yield Reading.of(
        "streamgauge_blocks_bytes", "gauge", "Bytes of all blocks.", sum(meta.bytes for meta in state.blocks)
    )
    yield Reading.of(
        "streamgauge_blocks_samples", "gauge", "Samples in all blocks.", sum(meta.samples for meta in state.blocks)
    )
    yield Reading.of(
        "streamgauge_damaged", "gauge", "Things on disk that could not be read and were set aside.", len(state.damage)
    )
    yield Reading.of(
        "streamgauge_tombstones",
        "gauge",
        "Deletions that hide samples and are not carried out on the disk yet.",
        len(state.tombstones),
    )
    refusing = float(store.refusal is not None)
    yield Reading.of("streamgauge_read_only", "gauge", "1 while writes are refused because of the disk.", refusing)
    yield from _by_resolution(state.blocks)
    counts = maintenance.counts
    for name, text in (
        ("flushes", "Flushes of the head into blocks."),
        ("flush_failures", "Flushes that failed; they are tried again."),
        ("compactions", "Compactions."),
        ("compaction_failures", "Compactions that failed; they are tried again."),
        ("expiry_failures", "Steps of retention and downsampling that failed; they are tried again."),
        ("downsampling_runs", "Days whose samples were replaced by aggregates."),
    ):
        yield Reading.of(f"streamgauge_{name}_total", "counter", text, getattr(counts, name))
    dropped: dict[tuple[str, ...], float] = {(reason,): count for reason, count in counts.blocks_dropped.items()}
    yield Reading("streamgauge_blocks_dropped_total", "counter", "Blocks dropped by retention.", dropped, ("reason",))
    deletions = maintenance.deletions.counts
    for name, text in (
        ("deletions", "Deletions made."),
        ("deletions_refused", "Deletions refused because too many waited to be carried out."),
        ("blocks_cleaned", "Blocks written anew or removed to carry deletions out."),
        ("samples_deleted", "Samples that deletions took off the disk."),
    ):
        yield Reading.of(f"streamgauge_{name}_total", "counter", text, getattr(deletions, name))


def event_readings(store: Store, maintenance: Maintenance) -> Iterator[Reading]:
    """Sizes and totals of the events in the store."""
    events, counts = store.events, maintenance.events.counts
    blocks = events.state.blocks
    for name, text, value in (
        ("head_events", "Events in memory, and definitions of their streams.", events.head.rows),
        ("head_event_bytes", "Bytes of text of the events in memory.", events.head.bytes),
        ("event_blocks", "Blocks of events on disk.", len(blocks)),
        ("event_blocks_bytes", "Bytes of all blocks of events.", sum(meta.bytes for meta in blocks)),
        ("event_blocks_events", "Events in all blocks.", sum(meta.events for meta in blocks)),
    ):
        yield Reading.of(f"streamgauge_{name}", "gauge", text, value)
    for name, text, value in (
        ("events_appended", "Events made durable since the start.", events.events_appended),
        ("event_flushes", "Flushes of events into a block.", counts.flushes),
        ("event_flushes_undivided", "Flushes that left it to compaction to divide payloads.", counts.flushes_undivided),
        ("event_compactions", "Compactions of blocks of events.", counts.compactions),
        ("event_blocks_dropped", "Blocks of events dropped by retention.", counts.blocks_dropped),
    ):
        yield Reading.of(f"streamgauge_{name}_total", "counter", text, value)


def _by_resolution(blocks: Sequence[BlockMeta]) -> Iterator[Reading]:
    """Of blocks of aggregates. There may be none."""
    count: Counter[tuple[str, ...]] = Counter()
    size: Counter[tuple[str, ...]] = Counter()
    for meta in thinned(blocks):
        resolution = (format_duration(meta.resolution),)
        count[resolution] += 1
        size[resolution] += meta.bytes
    for name, text, values in (
        ("streamgauge_downsampled_blocks", "Blocks of aggregates, by resolution.", count),
        ("streamgauge_downsampled_bytes", "Bytes of blocks of aggregates, by resolution.", size),
    ):
        yield Reading(name, "gauge", text, {key: float(value) for key, value in values.items()}, ("resolution",))


def pin_readings(pins: Pins) -> Iterator[Reading]:
    """Who keeps blocks from going away."""
    yield Reading.of("streamgauge_pins", "gauge", "Programs that copy blocks, which stay meanwhile.", pins.held)
    for name, text in (
        ("taken", "Pins of blocks that were given out."),
        ("refused", "Pins refused because too many were held."),
        ("expired", "Pins ended because they were not renewed."),
    ):
        yield Reading.of(f"streamgauge_pins_{name}_total", "counter", text, getattr(pins, name))


def worker_readings(workers: WorkerPool) -> Iterator[Reading]:
    """Totals and present state of the query workers."""
    statistics = workers.statistics()
    for field in fields(statistics):
        now = field.name in _NOW
        name = f"streamgauge_query_{field.name}" + ("" if now else "_total")
        yield Reading.of(name, "gauge" if now else "counter", _OF_WORKERS[field.name], getattr(statistics, field.name))
