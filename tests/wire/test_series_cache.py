from __future__ import annotations

from streamgauge.wire.series_cache import SeriesCache


def test_what_is_in_use_survives_and_the_cache_stays_within_its_limit() -> None:
    cache = SeriesCache(limit=1_000_000)
    cache.records.add(b"kept", 20, 7)
    cache.labels.put(b"kept", 8)
    code = cache.code(b"kept")
    for number in range(10_000):
        cache.trim()
        slot = cache.slot(b"kept")
        assert slot is not None
        assert (cache.records.ids[slot], cache.records.sizes[slot]) == (7, 20)
        assert cache.labels.get(b"kept") == 8
        assert cache.code(b"kept") == code
        cache.records.add(b"record %d" % number, 20, number)
        cache.labels.put(b"labels %d" % number, number)
        cache.rows.put(b"row %08d" % number, number)
        for _ in range(2):
            cache.tables.remember(b"%600d" % number)
        assert cache.size < 1_010_000
    assert cache.slot(b"record 1") is None
    assert cache.labels.get(b"labels 1") is None
    assert cache.labels.get(b"labels 9999") == 9999


def test_a_symbol_keeps_its_code_and_a_code_its_symbol() -> None:
    cache = SeriesCache(limit=40_000)
    owners: dict[int, bytes] = {}
    for number in range(5_000):
        cache.trim()
        for symbol in (b"job", b"symbol %d" % (number // 3)):
            code = cache.code(symbol)
            assert owners.setdefault(code, symbol) == symbol
            assert cache.code(symbol) == code


def test_symbol_tables_are_found_by_exactly_their_bytes() -> None:
    cache = SeriesCache()
    long = b"\x22\x00" + b"".join(b"\x22\x7f" + letter * 127 for letter in (b"a", b"b", b"c", b"d", b"e"))
    cache.tables.remember(long)
    assert cache.tables.find(long + b"\x2a\x00") is None, "one that comes once is not kept"
    cache.tables.remember(long)
    assert cache.tables.find(long + b"\x2a\x00") is not None
    assert cache.tables.find(long[:-1] + b"f\x2a\x00") is None
    assert cache.tables.find(long[:-1]) is None


def test_another_generation_has_another_cache() -> None:
    cache = SeriesCache().for_generation(1)
    cache.records.add(b"r", 20, 1)
    cache.code(b"\x01s")
    assert cache.for_generation(1) is cache
    later = cache.for_generation(2)
    assert later.size == 0
    assert later.slot(b"r") is None
    assert cache.slot(b"r") == 0, "requests that began before go on with theirs"
    assert later.for_generation(2) is later


def test_symbol_tables_that_come_once_cost_next_to_nothing() -> None:
    """Where the boundaries between requests move there is another one in each."""
    cache = SeriesCache()
    for number in range(1000):
        cache.tables.remember(b"%60000d" % number)
    assert cache.size < 200_000


def test_codes_begin_anew_before_they_run_out() -> None:
    cache = SeriesCache().for_generation(1)
    cache._next_code = (1 << 31) + 1
    later = cache.for_generation(1)
    assert later.code(b"\x01t") == 0
    assert cache.code(b"\x01t") == (1 << 31) + 1
