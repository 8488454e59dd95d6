from __future__ import annotations

from streamgauge.wire.series_cache import SeriesCache, SpellingCache


def test_a_spelling_in_use_survives_and_the_cache_stays_within_its_limit() -> None:
    cache = SpellingCache(limit=100_000)
    for number in range(10_000):
        cache.put(b"spelling %d" % number, number)
        assert cache.get(b"spelling 0") == 0
        assert cache.size <= 110_000
    assert cache.get(b"spelling 1") is None
    assert cache.get(b"spelling 9999") == 9999
    assert len(cache) < 1000


def test_records_in_use_survive_trimming() -> None:
    cache = SeriesCache(limit=400_000)
    cache.records.add(b"kept", 20, 7)
    for number in range(5_000):
        cache.trim()
        slot = cache.slot(b"kept")
        assert slot is not None
        assert (cache.records.ids[slot], cache.records.sizes[slot]) == (7, 20)
        cache.records.add(b"record %d" % number, 20, number)
        assert cache.size < 500_000
    assert cache.slot(b"record 1") is None


def test_a_symbol_keeps_its_code_and_a_code_its_symbol() -> None:
    cache = SeriesCache(limit=40_000)
    owners: dict[int, bytes] = {}
    for number in range(5_000):
        for symbol in (b"job", b"symbol %d" % (number // 3)):
            code = cache.code(symbol)
            assert owners.setdefault(code, symbol) == symbol
            assert cache.code(symbol) == code


def test_symbol_tables_are_found_by_exactly_their_bytes() -> None:
    cache = SeriesCache(limit=100_000)
    raw = b"\x22\x00" + b"\x22\x7f" + b"a" * 127 + b"\x22\x7f" + b"b" * 127 + b"\x22\x7f" + b"c" * 127
    long = raw + b"\x22\x7f" + b"d" * 127
    cache.tables.remember(long)
    assert cache.tables.find(long + b"\x2a\x00") is not None
    assert cache.tables.find(long[:-1] + b"e\x2a\x00") is None
    for number in range(1000):
        cache.tables.remember(b"%600d" % number)
        assert cache.size < 60_000


def test_another_generation_forgets_everything() -> None:
    cache = SeriesCache()
    cache.enter(1)
    cache.records.add(b"r", 20, 1)
    cache.labels.put(b"l", 1)
    cache.rows.put(b"c", 1)
    cache.tables.remember(b"x" * 600)
    cache.enter(1)
    assert cache.slot(b"r") == 0
    cache.enter(2)
    assert cache.size == 0
    assert cache.slot(b"r") is None
