"""From the bytes that spell a series on the wire to its id: labels are decoded once a series, not once a sample.

Only bytes that mean the same in every request may be a key: the label section of a remote-write 1.0 series is such, a
reference into a request's symbol table is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streamgauge.errors import BadInput, IndexFull
from streamgauge.model.labels import MAX_LABELS, series_key
from streamgauge.wire.findings import Findings, bad_labels, no_room, series_text
from streamgauge.wire.row_cache import RowCache
from streamgauge.wire.symbols import SymbolCache

Resolve = Callable[[bytes], int]
"""The sink's `resolve`: the id of a canonical key. Raises BadInput and IndexFull, which refuse the series: it is not
the sender's, or new ones have no room; and other errors where the server has a trouble of its own, which end the
request."""

MAX_PAIRS = 2 * MAX_LABELS
"""Labels of a series on the wire, those with an empty value included. Decoders stop collecting after one more."""

DEFAULT_LIMIT = 256 << 20
"""Bytes. 300,000 series of 9 labels never leave it; one that is not in it costs forty times as much to decode, so the
limit only guards against label sets that never come back."""

_MANY_CODES = 1 << 31
"""Codes of symbols have 32 bits, and one request has far fewer than are left then."""

_SPELLING_OVERHEAD = 135  # bytes object, dictionary entry and number beside the spelling itself (measured)
_RECORD_OVERHEAD = 180  # the same, and three lists


class SpellingCache:
    """Spelling to number, in two generations: `rotate` makes the young one the old one, and the old one goes. What is
    asked for again moves back into the young one.

    size: bytes held by the young one.
    """

    def __init__(self) -> None:
        self.young: dict[bytes, int] = {}
        self.size = 0
        self._old: dict[bytes, int] = {}

    def get(self, spelling: bytes) -> int | None:
        known = self.young.get(spelling)
        if known is None and (known := self._old.pop(spelling, None)) is not None:
            self.put(spelling, known)
        return known

    def put(self, spelling: bytes, number: int) -> None:
        self.young[spelling] = number
        self.size += len(spelling) + _SPELLING_OVERHEAD

    def rotate(self) -> None:
        self._old, self.young, self.size = self.young, {}, 0


class RecordOrder:
    """Records of one sample each, numbered (`slot`) in the order in which they were first seen.

    A sender keeps the order of its series, so after slot n usually comes slot n + 1: comparing with that one prefix is
    half the cost of cutting out the bytes and hashing them, and as exact.

    prefixes[slot]: the record's bytes up to the value, or up to the timestamp where the value is left out. The last
        element is (), which no record begins with.
    sizes[slot]: bytes of the whole record.
    ids[slot]: its series id; ~id where the value is left out.
    """

    def __init__(self) -> None:
        self.slots: dict[bytes, int] = {}
        self.prefixes: list[bytes | tuple[()]] = [()]
        self.sizes: list[int] = []
        self.ids: list[int] = []
        self.size = 0  # bytes

    def add(self, prefix: bytes, size: int, series: int, name: bytes | None = None) -> int:
        """Note a record under `name`, or else under its prefix."""
        slot = self.slots[prefix if name is None else name] = len(self.ids)
        self.prefixes[slot] = prefix
        self.prefixes.append(())
        self.sizes.append(size)
        self.ids.append(series)
        self.size += len(prefix) + _RECORD_OVERHEAD
        return slot


class SymbolTable:
    """What is known of the requests of remote write 2.0 that begin with exactly these symbols.

    As long as a sender's series stay the same its requests repeat, table included; a record with its raw references is
    then self-contained.

    tails[slot]: the bytes of a record behind its sample.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.records = RecordOrder()
        self.tails: list[bytes] = []

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.raw) + self.records.size


class SymbolTables:
    """Symbol tables that came more than once, found by how they begin.

    Where the boundaries between a sender's requests move, each table comes once: of that one only a number is kept.

    size: bytes.
    """

    _BEGINNING = 512  # bytes; enough to hold the values of the first series, which tell requests of one sender apart
    _SEEN_BYTES = 100  # of a number in a set (measured)

    def __init__(self) -> None:
        self.size = 0
        self._seen: set[int] = set()  # hashes of tables
        self._tables: dict[bytes, SymbolTable] = {}

    def find(self, data: bytes) -> SymbolTable | None:
        """The table with which the request `data` may begin; what follows it is for the caller to check."""
        table = self._tables.get(data[: self._BEGINNING])
        return table if table is not None and data.startswith(table.raw) else None

    def remember(self, raw: bytes) -> None:
        """Note a table, and keep it, in the place of one that begins alike, when it comes again. Short ones are not
        worth it."""
        if len(raw) < self._BEGINNING:
            return
        if (number := hash(raw)) not in self._seen:
            self._seen.add(number)
            self.size += self._SEEN_BYTES
            return
        beginning = raw[: self._BEGINNING]
        if (other := self._tables.get(beginning)) is not None:
            self.size -= other.size
        self._tables[beginning] = SymbolTable(raw)
        self.size += len(raw)

    def learn(self, table: SymbolTable, prefix: bytes, tail: bytes, size: int, series: int) -> None:
        """Note a record of a table's requests, as `RecordOrder.add`, and the bytes behind its sample."""
        if prefix + tail not in table.records.slots:
            before = table.records.size
            table.records.add(prefix, size, series, prefix + tail)
            table.tails.append(tail)
            self.size += table.records.size - before


class SeriesCache:
    """All that a server's remote-write decoders remember of series. Used on one thread.

    `limit` is in bytes, over everything in it; one batch may go beyond it.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, generation: int | None = None) -> None:
        self._limit = limit
        self._generation = generation
        self._next_code = 0
        self.records, self._old_records = RecordOrder(), RecordOrder()
        self.labels = SpellingCache()  # label section of 1.0
        self.symbols = SymbolCache()  # those of 2.0, each with a code that no other ever has
        self.rows = RowCache()  # the codes of a 2.0 series' labels and metadata
        self.tables = SymbolTables()
        self._old_size = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self._young_size() + self._old_size

    def _young_size(self) -> int:
        parts = (self.records, self.labels, self.symbols, self.rows, self.tables)
        return sum(part.size for part in parts)

    def for_generation(self, generation: int) -> SeriesCache:
        """The cache for a request that begins: this one, or an empty one where its ids are of another generation of
        the sink, or codes run out. Requests that are still being decoded go on with theirs, and can spoil nothing."""
        if generation == self._generation and self._next_code <= _MANY_CODES:
            return self
        return SeriesCache(self._limit, generation)

    def forget_metadata(self) -> None:
        """What decoders handed over was not stored: make them hand over the metadata of 2.0 series again."""
        self.rows = RowCache()
        self.tables = SymbolTables()

    def trim(self) -> None:
        """Keep to the limit: when the young generation has half of it, it becomes the old one, and the old one goes.

        Replaces `records` and the spellings' dictionaries, so it is called between batches only.
        """
        size = self._young_size()
        if size <= self._limit // 2:
            return
        self._old_records, self.records = self.records, RecordOrder()
        for part in (self.labels, self.symbols, self.rows):
            part.rotate()
        self.tables = SymbolTables()
        self._old_size = size

    def slot(self, prefix: bytes) -> int | None:
        """The slot in `records` of the record that begins with `prefix`."""
        slot = self.records.slots.get(prefix)
        if slot is None and (old := self._old_records.slots.get(prefix)) is not None:
            slot = self.records.add(prefix, self._old_records.sizes[old], self._old_records.ids[old])
        return slot

    def code(self, symbol: bytes) -> int:
        """The code, below 2**32, of a symbol as `wire.symbols` spells it: the same for as long as it is remembered, and
        never another symbol's."""
        code = self.symbols.code(symbol, self._next_code)
        self._next_code += code == self._next_code
        return code


def identify(pairs: Iterable[tuple[bytes, bytes]], samples: int, resolve: Resolve, findings: Findings) -> int | None:
    """The id of a series with these labels; None when it, and with it its `samples` samples, is refused."""
    labels = list(pairs)
    try:
        if len(labels) > MAX_PAIRS:
            raise BadInput(f"a series has more than {MAX_PAIRS} labels")
        return resolve(series_key(labels))
    except BadInput as error:
        findings.refuse(bad_labels(error), f"{series_text(labels)}: {error.message}", samples)
    except IndexFull as error:
        findings.refuse(no_room(error), f"{series_text(labels)}: {error.message}", samples)
    return None
