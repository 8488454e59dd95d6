from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.wire import relay
from streamgauge.wire.relay import MAX_LINE_BYTES, Added, LineReader


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 9)))
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(lines)
    whole = LineReader().feed(data)
    reader = LineReader()
    assert [line for piece in cut(data, sizes) for line in reader.feed(piece)] == whole
    assert whole == [line for each in data.split(b"\n")[:-1] if (line := each.rstrip(b"\r"))]


def test_a_line_that_is_too_long_is_left_out_and_nothing_of_it_is_kept() -> None:
    reader = LineReader()
    piece = b"x" * 10_000
    for _ in range(100):
        assert reader.feed(piece) == []
        assert len(reader._rest) <= MAX_LINE_BYTES
    assert reader.feed(b"end\nping\n") == [b"ping"]
    assert reader.feed(b"a" * (MAX_LINE_BYTES + 1) + b"\nok\n") == [b"ok"]
    assert reader.too_long == 2


@pytest.mark.parametrize(
    ("rest", "tags", "words"),
    [
        (b"cpu", {}, []),
        (b"cpu:", {}, []),
        (b"cpu:dc:a,rack:7", {b"dc": b"a", b"rack": b"7"}, [b"dc:a", b"rack:7"]),
        (b"cpu:metrics,,dc:a,", {b"dc": b"a"}, [b"metrics", b"dc:a"]),
        (b"cpu:url:http://x", {b"url": b"http://x"}, [b"url:http://x"]),
        (b"cpu:dc:a,dc:b,:c", {b"dc": b"b"}, [b"dc:a", b"dc:b", b":c"]),
    ],
)
def test_tags_of_a_collector(rest: bytes, tags: dict[bytes, bytes], words: list[bytes]) -> None:
    assert relay.added(rest) == Added(b"cpu", tuple(tags.items()), tuple(words))


@pytest.mark.parametrize("rest", [b"", b":dc:a", b"a-b", b"a,b", b"_connected", b"_connected:dc:a", b"a b"])
def test_what_is_no_name_of_a_collector(rest: bytes) -> None:
    with pytest.raises(BadInput):
        relay.added(rest)


@pytest.mark.parametrize("text", ["x" * 256, "ü" * 128])
def test_names_and_tags_have_255_bytes(text: str) -> None:
    raw = text.encode()
    for check in (relay.check_collector, relay.check_stat, lambda text: relay.check_tags({"k": text[:-1]})):
        with pytest.raises(BadInput, match="at most 255 bytes"):
            check(text)
    for rest in (raw, b"cpu:" + raw, b"cpu:k:" + raw[2:]):
        with pytest.raises(BadInput, match="at most 255 bytes"):
            relay.added(rest)
    assert relay.added(b"x" * 255 + b":k:" + raw[3:]).tags == ((b"k", raw[3:]),)


def test_tags_hold_no_control_characters() -> None:
    with pytest.raises(BadInput, match="control"):
        relay.added(b"cpu:k:a\x01b")
    with pytest.raises(BadInput, match="control"):
        relay.check_tags({"k": "a\x01b"})


def test_a_collector_has_64_tags() -> None:
    tags = {f"k{number}": "v" for number in range(64)}
    relay.check_tags(tags)
    assert len(relay.added(relay.command(relay.add_line("cpu", tags).strip())[1]).words) == 64
    tags["more"] = "v"
    with pytest.raises(BadInput, match="64 tags"):
        relay.check_tags(tags)
    with pytest.raises(BadInput, match="64 tags"):
        relay.added(relay.command(relay.add_line("cpu", tags).strip())[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"1.5000", 1.5), (b"-3", -3), (b"1e3", 1000), (b" 7 ", 7), (b"", None), (b"1_0", None), (b"nan", None)],
)
def test_numbers(text: bytes, expected: float | None) -> None:
    assert relay.number(text) == expected


@pytest.mark.parametrize("text", [b"inf", b"-Infinity", b"0x10", b"1:2", "١".encode(), b"\xff", b"0" * 512 + b"1"])
def test_what_is_no_number(text: bytes) -> None:
    assert relay.number(text) is None


def test_override_is_read_as_it_is_written() -> None:
    line = relay.override_line(60, {b"cpu": 1, b"disk": 0.5})
    assert line == b"override 60 cpu:1,disk:0.5\n"
    assert relay.overridden(relay.command(line.strip())[1]) == (60, {b"cpu": 1, b"disk": 0.5})
    assert relay.overridden(b"5 a:0,b:-1,c,:3,d:x") == (5, {})
    for bad in (b"", b"x a:1", b"0 a:1"):
        with pytest.raises(BadInput):
            relay.overridden(bad)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.dictionaries(st.from_regex(r"[a-z-]{1,8}", fullmatch=True), st.floats(), max_size=3),
        max_size=4,
    )
)
def test_answers_are_read_as_they_were_meant(values: dict[str, dict[str, float]]) -> None:
    found: dict[tuple[str, str], float] = {}
    for line in LineReader().feed(relay.got_lines(values)):
        word, rest = relay.command(line)
        assert word == relay.GOT
        for item in rest.split(b","):
            name, _, text = item.partition(b":")
            collector, _, stat = name.decode().partition("-")
            number = relay.number(text)
            assert number is not None
            found[collector, stat] = number
    expected = {(c, n): v for c, stats in values.items() for n, v in stats.items() if math.isfinite(v)}
    assert found == expected


def test_an_answer_of_many_values_is_cut_into_lines_that_are_read() -> None:
    values = {"disk": {f"a_rather_long_name_of_a_disk_{number}": number / 3 for number in range(5000)}}
    reader = LineReader()
    lines = reader.feed(relay.got_lines(values))
    assert len(lines) > 1
    assert reader.too_long == 0
    assert sum(line.count(b",") + 1 for line in lines) == 5000


@given(st.binary(max_size=200))
def test_anything_may_come(data: bytes) -> None:
    reader = LineReader()
    for line in reader.feed(data + b"\n"):
        _, rest = relay.command(line)
        for read in (relay.added, relay.overridden):
            try:
                read(rest)
            except BadInput as error:
                assert error.message
        relay.words(rest)
        relay.number(rest)
