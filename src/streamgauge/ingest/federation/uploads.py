"""The receiver of uploads: metric families, stored as a whole or not at all.

Three ways lead from a body to columns, each some times faster than the next. Usually a push has the series of the one
before in the same order. Else its metrics are found one by one among those of the one before, and those that are new by
their labels. What has another form, or seems to break a rule, is decoded into objects and held against the rules one by
one; only this way says what is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import Clock
from streamgauge.errors import (
    IndexFull,
    Overloaded,
    PushRefused,
    TooLarge,
    UnsupportedMedia,
)
from streamgauge.ingest.admission import Held, InFlight, Limits, count, read_body, refusal_text
from streamgauge.ingest.federation.layouts import LEFT_OUT, Layout, Layouts, layout_of
from streamgauge.ingest.federation.liveness import Liveness
from streamgauge.ingest.federation.markers import Markers
from streamgauge.ingest.federation.newcomers import LEFT_OUT_KEY, Newcomers
from streamgauge.ingest.federation.policy import TENSE, Bounds, Policy, Row
from streamgauge.ingest.federation.pushes import Admission, Described, Sender
from streamgauge.ingest.federation.repeats import Repeats
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.federation.stats import UPLOAD, PushStats
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import Floats, Int64s, UInt32s
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import split_key
from streamgauge.model.sink import Sink
from streamgauge.wire import metric_family_protobuf, metric_family_text, snappy_frames
from streamgauge.wire.findings import Findings, no_room, series_text
from streamgauge.wire.metric_family import MetricFamily, MetricType
from streamgauge.wire.push_part import Part, part_of
from streamgauge.wire.push_records import (
    Records,
    read_numbers,
    survey,
)

T = TypeVar("T")

PROTOBUF = "application/vnd.google.protobuf"
TEXT = "text/plain"

_NEW_SERIES = 64
"""Series resolved before other tasks get their turn: 15 µs each, where they are new."""
_TYPES = 16
"""Content types that are remembered: clients know one each, and spell it in few ways."""
_WORDS = {
    MetricType.COUNTER: "counter",
    MetricType.GAUGE: "gauge",
    MetricType.SUMMARY: "summary",
    MetricType.HISTOGRAM: "histogram",
}
_ATTEMPTS = 3
_NO_TIME = -1
_REFUSED = LEFT_OUT - 1
"""In place of a series id: there is no room for the series."""


@dataclass(slots=True)
class _Push:
    """What is to be stored of a body. ids: LEFT_OUT and _REFUSED among them; one element a sample. series: ids that are
    stored, ascending, each once."""

    ids: UInt32s
    times: Int64s
    values: Floats
    series: UInt32s
    whole: bool = False  # whether all samples are stored
    metadata: tuple[Metadata, ...] = ()
    findings: Findings = field(default_factory=Findings)
    learned: Layout | None = None

    @property
    def newest(self) -> int:
        return int(self.times.max()) if len(self.times) else _NO_TIME


class Uploads:
    """Receives uploads of all clusters. One for a server; used on the event loop."""

    def __init__(
        self,
        sink: Sink,
        stats: PushStats,
        clock: Clock,
        inflight: InFlight,
        turns: Turns,
        liveness: Liveness,
        markers: Markers,
        settings: PushSettings,
        described: Described,
        limits: Limits | None = None,
    ) -> None:
        """Raises ConfigError for settings that cannot be."""
        self._described = described
        self._sink = sink
        self._stats = stats
        self._bytes = stats.shared.ingest_request_bytes.labels(UPLOAD)
        self._seconds = stats.shared.ingest_seconds.labels(UPLOAD)
        self._repeated = stats.layouts.labels("same")
        self._clock = clock
        self._inflight = inflight
        self._turns = turns
        self._liveness = liveness
        self._markers = markers
        self._policy = Policy(settings)
        self._admission = Admission(clock, settings, liveness, stats)
        content = (limits or Limits()).content
        self._limit = min(settings.limit_bytes, content) if settings.limit_bytes > 0 else content
        self._layouts = Layouts(sink.generation)
        shared = (self._policy, self._admission, self._layouts)
        self.repeats = Repeats(
            sink, stats, clock, turns, liveness, markers, *shared, negotiate=negotiate, limit=self._limit
        )

    @property
    def cache_bytes(self) -> int:
        return self._layouts.nbytes

    async def receive(self, identity: ClusterIdentity, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> None:
        """Store an upload of the cluster. It is on disk when this returns.

        headers: by name in lower case. Raises ClientErrors for what is wrong with it, RateLimited, Overloaded and
        StorageErrors; nothing is stored then, but where PushRefused says how much. What `body` raises goes through.
        """
        with self._admission.receiving(identity, self._inflight) as (sender, held):
            await self._receive(sender, headers, body, held)

    async def _receive(
        self, sender: Sender, headers: Mapping[str, str], body: AsyncIterator[bytes], held: Held
    ) -> None:
        text = negotiate(headers)
        if (part := part_of(headers)) is not Part.WHOLE:
            sender = replace(sender, part=part)
        raw = await read_body(headers, body, snappy_frames.encoded_limit(self._limit), held)
        self._bytes.inc(len(raw))
        started = self._clock.monotonic()
        data = await self._content(headers, raw, held)
        push = await self._store(sender, data, text)
        self._seconds.observe(self._clock.monotonic() - started)
        stored = len(push.ids) if push.whole else int(np.count_nonzero(push.ids < _REFUSED))
        count(self._stats.shared, UPLOAD, stored, push.findings)
        if left_out := 0 if push.whole else int(np.count_nonzero(push.ids == LEFT_OUT)):
            self._stats.left_out.labels(UPLOAD).inc(left_out)
        if push.findings.refused:
            raise PushRefused(refusal_text(stored, push.findings).rstrip("\n"))

    async def _content(self, headers: Mapping[str, str], raw: bytes, held: Held) -> bytes:
        """The body, decompressed. Raises BadInput and TooLarge."""
        if headers.get("content-encoding", "").strip().lower() != "snappy":
            if len(raw) > self._limit:
                raise TooLarge(f"the body has {len(raw)} bytes; the limit is {self._limit}")
            return raw
        return await in_turns(self._turns, _unpacked(raw, self._limit, held))

    async def _store(self, sender: Sender, data: bytes, text: bool) -> _Push:
        """Read a push and append it, from the beginning again when series ids became invalid."""
        for _ in range(_ATTEMPTS):
            generation = self._sink.generation
            self._layouts.renew(generation)
            push = await self._read(sender, data, text)
            if self._sink.generation != generation:
                continue
            with self._admission.spending(sender.cluster):
                try:
                    await self._append(push)
                except Overloaded:
                    if self._sink.generation == generation:
                        raise
                    continue
            await self._note(sender, push, generation)
            return push
        raise Overloaded("series were pruned while the push was being stored", retry_after=1)

    async def _append(self, push: _Push) -> None:
        batch = SampleBatch(push.ids, push.times, push.values)
        if not push.whole:
            stored = push.ids < _REFUSED
            batch = SampleBatch(push.ids[stored], push.times[stored], push.values[stored])
        await self._sink.append(batch, push.metadata)

    async def _note(self, sender: Sender, push: _Push, generation: int) -> None:
        """Remember what was stored, and mark what has ended."""
        if push.learned is not None and self._layouts.generation == generation == self._sink.generation:
            self._layouts.put((sender.owner, sender.part), push.learned)
        now = self._clock.monotonic()
        ended = self._liveness.upload(sender.cluster, push.series, push.newest, now, sender.part)
        if ended is not None:
            await self._markers.mark(ended)

    # ---- from a body to columns -------------------------------------------------------------------------------------

    async def _read(self, sender: Sender, data: bytes, text: bool) -> _Push:
        bounds = self._policy.bounds(self._clock.now_ms(), self._sink.admitted())
        push = None if text else await self._quickly(sender, data, bounds)
        if push is None:
            push = await in_turns(self._turns, self._carefully(sender, data, text, bounds))
            self._stats.layouts.labels("new").inc()
        if self._policy.settings.overwrite_timestamps:
            self._count_tenses(push.times, bounds)
            push.times = np.full(len(push.times), bounds.now // 1000 * 1000, np.int64)
        return push

    async def _quickly(self, sender: Sender, data: bytes, bounds: Bounds) -> _Push | None:
        """A push of the usual form; None where it has another one, or may break a rule."""
        layout = self._layouts.find((sender.owner, sender.part))
        push = None if layout is None else await self._turns.take(partial(self._same, sender, layout, data, bounds))
        if push is not None:
            self._repeated.inc()
            return push
        records = await in_turns(self._turns, survey(data))
        if records is None:
            return None
        push = await in_turns(self._turns, self._similar(sender, layout, records, data, bounds))
        if push is not None:
            self._stats.layouts.labels("new" if layout is None else "similar").inc()
        return push

    def _same(self, sender: Sender, layout: Layout, data: bytes, bounds: Bounds) -> _Push | None:
        batch = self.repeats.read(sender, layout, data, bounds)
        if batch is None:
            return None
        return _Push(layout.ids, batch.times, batch.values, layout.series, layout.stored is None)

    def _similar(
        self, sender: Sender, layout: Layout | None, records: Records, data: bytes, bounds: Bounds
    ) -> Generator[None, None, _Push | None]:
        numbers = read_numbers(data, records.ends)
        if numbers is None or self._policy.in_time(numbers.times, records.first, bounds) is None:
            return None
        found = np.full(len(records), -1, np.int64) if layout is None else layout.ids_of(records)
        newcomers = Newcomers(self._policy, sender.labels, records, data)
        keys: dict[bytes, int] = {LEFT_OUT_KEY: LEFT_OUT}
        rows = np.flatnonzero(found < 0)
        places: list[int] = []
        for row in rows.tolist():
            key = newcomers.key(row)
            if key is None:
                return None
            places.append(keys.setdefault(key, -len(keys)))
            if len(places) % _NEW_SERIES == 0:
                yield
        found[rows] = places
        old = found[(found >= 0) & (found != LEFT_OUT)].astype(np.uint32)
        known = np.unique(old) if len(old) else old
        try:
            self._check_series(sender, known, len(keys) - 1)
        except PushRefused:  # a series that is spelled in a new way may be a known one
            return None
        ids = yield from self._resolved_keys(keys)
        if ids is None:
            return None
        new = found < 0
        found[new] = ids[-found[new]]
        learned = layout_of(data, records, found.astype(np.uint32))
        metadata = self._news(newcomers.families())
        whole = learned.stored is None
        return _Push(learned.ids, numbers.times, numbers.values, learned.series, whole, metadata, learned=learned)

    def _resolved_keys(self, keys: Iterable[bytes]) -> Generator[None, None, Int64s | None]:
        """The ids of the series in their order, the first of which is none. None where there is no room for one."""
        ids: list[int] = []
        resolve = self._sink.resolve
        for key in keys:
            try:
                ids.append(resolve(key) if ids else LEFT_OUT)
            except IndexFull:
                return None
            if len(ids) % _NEW_SERIES == 0:
                yield
        return np.array(ids, np.int64)

    def _news(self, families: Iterable[MetricFamily]) -> tuple[Metadata, ...]:
        """Type and help of metrics of which they are not known."""
        return tuple(
            Metadata(family.name, _WORDS[MetricType(family.type)], family.help)
            for family in families
            if family.type in _WORDS and not self._described(family.name)
        )

    def _check_series(self, sender: Sender, series: UInt32s, new: int) -> None:
        """Raises PushRefused."""
        beside = self._liveness.beside(sender.cluster, sender.part)
        self._admission.check_series(sender.cluster, series, new, beside)

    def _carefully(self, sender: Sender, data: bytes, text: bool, bounds: Bounds) -> Generator[None, None, _Push]:
        """Raises BadInput and PushRefused where a rule is broken."""
        families = yield from (metric_family_text if text else metric_family_protobuf).decode(data)
        rows: list[Row] = []
        allowed: list[MetricFamily] = []
        for family in families:
            if not family.metrics:
                continue
            before = len(rows)
            for row in self._policy.rows(family, sender.labels, bounds):
                if row is not None:
                    rows.append(row)
                if row is None or len(rows) % _NEW_SERIES == 0:
                    yield
            if any(row.key is not None for row in rows[before:]):
                allowed.append(family)
        distinct = {row.key for row in rows if row.key is not None}
        self._check_series(sender, np.empty(0, np.uint32), len(distinct))
        findings = Findings()
        ids = yield from self._resolved(rows, findings)
        return _Push(
            ids,
            np.array([row.time for row in rows], np.int64),
            np.array([row.value for row in rows], np.float64),
            np.unique(ids[ids < _REFUSED]),
            metadata=self._news(allowed),
            findings=findings,
        )

    def _resolved(self, rows: Sequence[Row], findings: Findings) -> Generator[None, None, UInt32s]:
        known: dict[bytes, int] = {}
        ids = np.full(len(rows), LEFT_OUT, np.uint32)
        for number, row in enumerate(rows):
            if row.key is None:
                continue
            series = known.get(row.key)
            if series is None:
                try:
                    series = self._sink.resolve(row.key)
                except IndexFull as error:
                    series = _REFUSED
                    findings.refuse(no_room(error), f"{series_text(split_key(row.key))}: {error.message}")
                known[row.key] = series
                if len(known) % _NEW_SERIES == 0:
                    yield
            ids[number] = series
        return ids

    def _count_tenses(self, times: Int64s, bounds: Bounds) -> None:
        past, future = int((times < bounds.now - TENSE).sum()), int((times > bounds.now + TENSE).sum())
        for tense, number in (("past", past), ("future", future), ("present", len(times) - past - future)):
            self._stats.overwritten.labels(tense).inc(number)


def negotiate(headers: Mapping[str, str]) -> bool:
    """Whether an upload is text; else it is protobuf. Raises UnsupportedMedia, naming what is spoken."""
    encoding = headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity", "snappy"):
        raise UnsupportedMedia(f'content encoding "{encoding[:100]}" is not spoken here; send snappy (framed), or none')
    return _is_text(headers.get("content-type", ""))


@lru_cache(_TYPES)
def _is_text(content_type: str) -> bool:
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    given = dict(_parameter(text) for text in parameters if text)
    if kind.lower() == PROTOBUF:
        expected = {"proto": "io.prometheus.client.MetricFamily", "encoding": "delimited"}
    elif kind.lower() == TEXT:
        expected = {"version": "0.0.4"}
    else:
        raise UnsupportedMedia(f'content type "{kind[:100]}" is not spoken here; send {_SPOKEN}')
    for name, value in expected.items():
        if given.get(name, value) != value:
            raise UnsupportedMedia(f'{name}="{given[name][:100]}" of {kind} is not spoken here; send {_SPOKEN}')
    return kind.lower() == TEXT


_SPOKEN = f"{PROTOBUF}; proto=io.prometheus.client.MetricFamily; encoding=delimited, or {TEXT}; version=0.0.4"


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"')


async def in_turns(turns: Turns, work: Generator[None, None, T]) -> T:
    """What a generator returns, each of its steps in a turn of its own."""
    results: list[T] = []

    def step() -> None:
        try:
            next(work)
        except StopIteration as done:
            results.append(done.value)

    while not results:
        await turns.take(step)
    return results[0]


def _unpacked(raw: bytes, limit: int, held: Held) -> Generator[None, None, bytes]:
    parts: list[bytes] = []
    for part in snappy_frames.pieces(raw, limit):
        if parts:
            yield
        held.add(len(part))
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
