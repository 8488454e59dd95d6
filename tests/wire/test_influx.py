"""The InfluxDB line protocol: what is read, what is refused and how that is worded, in columns and line by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput, MetricFull
from streamgauge.model.labels import labels_of
from streamgauge.testing import MemorySink
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.influx import InfluxCache, decode
from streamgauge.wire.influx_columns import columns_of
from streamgauge.wire.influx_lines import MAX_FIELDS, MAX_LINE_BYTES, MAX_TAGS, Precision, read_key, read_line
from streamgauge.wire.samples import BATCH_ROWS

NOW = 1_790_000_000_000
NS = Precision.NANOSECONDS
Sample = tuple[dict[str, str], int, float]


class Decoded:
    """What becomes of a body."""

    def __init__(
        self,
        data: bytes,
        precision: Precision = NS,
        sink: MemorySink | None = None,
        cache: InfluxCache | None = None,
    ) -> None:
        self.sink = sink or MemorySink()
        self.findings = Findings()
        batches = decode(
            data, precision, NOW, cache or InfluxCache(), self.sink.resolve, self.sink.admitted(), self.findings
        )
        self.batches = list(batches)

    @property
    def samples(self) -> list[Sample]:
        return [
            (labels_of(self.sink.keys[series]), time, value)
            for batch in self.batches
            for series, time, value in zip(
                batch.series.tolist(), batch.times.tolist(), batch.values.tolist(), strict=True
            )
        ]


def values(line: bytes) -> dict[str, float]:
    """By metric."""
    return {labels.pop("__name__"): value for labels, _, value in Decoded(line).samples}


def test_fields_become_metrics_and_tags_labels() -> None:
    decoded = Decoded(b"cpu,host=a,cpu=0 user=1.5,n=3i,on=t 1700000000123456789\ndisk free=7 1700000001999999999\n")
    assert decoded.samples == [
        ({"__name__": "cpu_user", "host": "a", "cpu": "0"}, 1_700_000_000_123, 1.5),
        ({"__name__": "cpu_n", "host": "a", "cpu": "0"}, 1_700_000_000_123, 3.0),
        ({"__name__": "cpu_on", "host": "a", "cpu": "0"}, 1_700_000_000_123, 1.0),
        ({"__name__": "disk_free"}, 1_700_000_001_999, 7.0),
    ]
    assert not decoded.findings.refused


@pytest.mark.parametrize(
    ("precision", "stamp", "time"),
    [
        (Precision.NANOSECONDS, 1_999_999, 1),
        (Precision.NANOSECONDS, -1, -1),
        (Precision.MICROSECONDS, 1_700_000_000_123_999, 1_700_000_000_123),
        (Precision.MILLISECONDS, 1_700_000_000_123, 1_700_000_000_123),
        (Precision.SECONDS, 1_700_000_000, 1_700_000_000_000),
        (Precision.MINUTES, 28_333_333, 1_699_999_980_000),
        (Precision.HOURS, 472_222, 1_699_999_200_000),
        (Precision.NANOSECONDS, (1 << 63) - 2, 9_223_372_036_854),
    ],
)
@pytest.mark.parametrize("form", [b"a v=1 %d\n", b'a v=1,t="x" %d\n'])
def test_times_of_every_precision_become_milliseconds(form: bytes, precision: Precision, stamp: int, time: int) -> None:
    assert [each[1] for each in Decoded(form % stamp, precision).samples] == [time]


@pytest.mark.parametrize("precision", Precision)
def test_a_time_beyond_what_64_bits_of_nanoseconds_hold_is_none(precision: Precision) -> None:
    stamp = ((1 << 63) - 2) // precision.value + 1
    decoded = Decoded(b"a v=1 %d\na v=1 -%d\na v=1 99999999999999999999\n" % (stamp, stamp), precision)
    assert not decoded.samples
    assert decoded.findings.refused == {Reason.LINE: 3}
    assert "time outside range" in decoded.findings.examples[0]


GOOD: dict[bytes, dict[str, float]] = {
    b"a v=.5,w=-.5,x=1.,y=-1.,z=1.e5": {"a_v": 0.5, "a_w": -0.5, "a_x": 1, "a_y": -1, "a_z": 1e5},
    b"a v=1e5,w=1E5,x=1e+5,y=1e-5,z=007": {"a_v": 1e5, "a_w": 1e5, "a_x": 1e5, "a_y": 1e-5, "a_z": 7},
    b"a v=-1i,w=01i,x=9223372036854775807i,y=-0": {"a_v": -1, "a_w": 1, "a_x": 9.223372036854775807e18, "a_y": 0},
    b"a v=5u,w=18446744073709551615u": {"a_v": 5, "a_w": 1.8446744073709552e19},
    b"a v=t,w=T,x=true,y=True,z=TRUE": dict.fromkeys(("a_v", "a_w", "a_x", "a_y", "a_z"), 1.0),
    b"a v=f,w=F,x=false,y=False,z=FALSE": dict.fromkeys(("a_v", "a_w", "a_x", "a_y", "a_z"), 0.0),
    b"  a v=1": {"a_v": 1},
    b"a  v=1": {"a_v": 1},
    b"a v=1 ": {"a_v": 1},
    b"a v=1\r": {"a_v": 1},
    b"a\\,b v=1": {"a,b_v": 1},
    b"a\\ b v=1": {"a b_v": 1},
    b"a\\=b v=1": {"a=b_v": 1},
    b"a=b v=1": {"a=b_v": 1},
    b"a\\\\b v=1": {"a\\\\b_v": 1},
    b"a v\\ w=1": {"a_v w": 1},
    b"a v\\,w=1": {"a_v,w": 1},
    b"a v\\=w=1": {"a_v=w": 1},
    b'a "v"=1': {'a_"v"': 1},
    b"a#b v=1": {"a#b_v": 1},
    b"a v=1,v=2": {"a_v": 2},
    b"#a v=1": {},
    b"   ": {},
}
"""What InfluxDB 1.6 reads so, too, but for the carriage return and unsigned integers."""


@pytest.mark.parametrize("line", GOOD)
def test_what_is_read(line: bytes) -> None:
    assert values(line) == GOOD[line]


BAD = {
    "invalid boolean": [b"a v=+1", b"a v=e5", b"a v=inf", b"a v=i", b"a v=+1i", b"a v=tr", b"a v=truex", b"a v==1"],
    "invalid number": [
        b"a v=-",
        b"a v=--1",
        b"a v=1.2.3",
        b"a v=.",
        b"a v=0x10",
        b"a v=1_0",
        b"a v=1e5i",
        b"a v=1.0i",
        b"a v=-i",
        b"a v=1ii",
        b"a v=1-1",
        b"a v=1=2",
        b"a v=1\t5",
        b"a v=1n",
        b"a v=1\\",
        b"a v=-1u",
        b"a v=1\\\nb v=2",
    ],
    "invalid float": [b"a v=1e309"],
    "unable to parse integer 9223372036854775808": [b"a v=9223372036854775808i"],
    "unable to parse unsigned integer": [b"a v=18446744073709551616u"],
    "bad timestamp": [b"a v=1 +5", b"a v=1 5.0", b"a v=1 5e3", b"a v=1 ,", b"a v=1 #x", b'a v="x" "y"'],
    "point is invalid": [b"a v=1 1 1"],
    "invalid field format": [b"a v=1,", b"a ,v=1", b"a v=1,,w=2", b"a v", b'a,x="q r" v=1', b"a v =1", b"a v\\=1"],
    "missing field key": [b"a =1"],
    "missing field value": [b"a v=", b"a v= 1", b"a v=,w=1"],
    "missing fields": [b"a", b"a,x=1", b"a\\ v=1", b" v=1", b"a\\"],
    "missing tag key": [b"a, v=1", b"a,x=1, v=1", b"a,x=1,,y=2 v=1", b"a,=1 v=1"],
    "missing tag value": [b"a,x v=1", b"a,x= v=1", b"a,x =1 v=1", b"a,b\\=1 v=1"],
    "invalid tag format": [b"a,x=1=2 v=1", b"a,x=a\\\\,y=1 v=1"],
    "duplicate tags": [b"a,x=1,x=1 v=1"],
    "missing measurement": [b",x=1 v=1"],
    "unbalanced quotes": [b'a v="x', b'a v="x\\"'],
}
"""What InfluxDB 1.6 refuses, too, nearly always with these words, and with none but for the unsigned."""


@pytest.mark.parametrize(("words", "line"), [(words, line) for words, lines in BAD.items() for line in lines])
def test_what_is_refused_and_how(words: str, line: bytes) -> None:
    decoded = Decoded(b"good v=1\n" + line)
    assert [labels["__name__"] for labels, _, _ in decoded.samples] == ["good_v"]
    assert decoded.findings.refused == {Reason.LINE: 1}
    (example,) = decoded.findings.examples
    assert example.startswith(f"unable to parse '{line.lstrip().decode()[:20]}")
    assert words in example


@pytest.mark.parametrize("last", [b"", b',z="x"'])
def test_a_line_has_so_many_fields_and_no_more(last: bytes) -> None:
    fields = MAX_FIELDS - (last != b"")
    fitting, longer = (b"a " + b",".join([b"v=1"] * count) + last for count in (fields, fields + 1))
    decoded = Decoded(b"%s\n%s\nb v=1\n" % (longer, fitting))
    assert len(decoded.samples) == fields + 1
    assert decoded.findings.refused[Reason.LINE] == 1
    assert decoded.findings.examples[0].endswith(f": more than {MAX_FIELDS} fields")


@pytest.mark.parametrize(
    ("line", "pauses"),
    [
        (b"a " + b",".join([b"v=1"] * 3_000) + b',z="x"', 6),
        (b"a " + b",".join([b'v="x"'] * 3_000), 6),
        (b"a,k=" + b"v" * 20_000 + b" " + b",".join([b"v=1"] * 3_000), 400),
    ],
)
def test_others_get_their_turn_within_a_line_of_many_fields_that_are_known(line: bytes, pauses: int) -> None:
    sink, cache = MemorySink(), InfluxCache()
    Decoded(b'a v=1,z="x"', sink=sink, cache=cache)
    assert sum(not len(batch) for batch in Decoded(line, sink=sink, cache=cache).batches) >= pauses


def test_text_is_refused_by_name_once_and_the_rest_of_its_line_is_kept() -> None:
    body = b'a s="x y,z=1",v=1,r="\\"\n#" 1000000\n' * 3 + b'b s="\\\\",v=2 1000000\n'
    decoded = Decoded(body)
    assert decoded.samples == [({"__name__": "a_v"}, 1, 1.0)] * 3 + [({"__name__": "b_v"}, 1, 2.0)]
    assert decoded.findings.refused == {Reason.STRING: 7}
    words = 'field type conflict: input field "{}" on measurement "{}" is type string, already exists as type float'
    assert decoded.findings.examples == [words.format(*each) for each in ("sa", "ra", "sb")]


def test_what_is_called_time_is_refused_and_the_rest_of_its_line_is_kept() -> None:
    decoded = Decoded(b"a time=1,v=2\nb,time=1 v=1,w=1\n")
    assert [labels["__name__"] for labels, _, _ in decoded.samples] == ["a_v"]
    assert decoded.findings.refused == {Reason.LABELS: 3}
    assert decoded.findings.examples[0] == 'invalid field name: input field "time" on measurement "a" is invalid'


def test_a_tag_cannot_give_the_metric_another_name() -> None:
    decoded = Decoded(b"a,__name__=b v=1\nc v=1\n")
    assert [labels["__name__"] for labels, _, _ in decoded.samples] == ["c_v"]
    assert decoded.findings.refused == {Reason.LABELS: 1}


def test_what_is_no_utf_8_or_has_no_room_is_refused_and_nothing_else() -> None:
    assert Decoded(b"a,x=\xff v=1\nb v=1\n").findings.refused == {Reason.LABELS: 1}
    sink = MemorySink()
    sink.resolve(b"b_v\xff")
    sink.refuse_series = MetricFull("full")
    decoded = Decoded(b"a v=1,w=2\nb v=1\na v=2\n", sink=sink)
    assert [labels["__name__"] for labels, _, _ in decoded.samples] == ["b_v"]
    assert decoded.findings.refused == {Reason.METRIC_LIMIT: 3}


def test_times_that_are_not_admitted_are_refused_with_their_line() -> None:
    decoded = Decoded(b"a v=1 5\na v=2 10\n\na v=3 16\n", Precision.MILLISECONDS, MemorySink((6, 15)))
    assert [value for _, _, value in decoded.samples] == [2.0]
    assert decoded.findings.refused == {Reason.TOO_OLD: 1, Reason.TOO_NEW: 1}
    assert decoded.findings.examples[0].startswith("line 1: time 5 ms")
    assert decoded.findings.examples[1].startswith("line 4: time 16 ms")


def test_a_line_that_is_too_long_is_left_out_with_nothing_around_it() -> None:
    long = b"a v=1," + b"w=1," * (MAX_LINE_BYTES // 4) + b"x=1"
    quoted = b'a v="' + b"\n" * MAX_LINE_BYTES
    for odd in (b"", b'c s=""\n'):
        decoded = Decoded(odd + b"b v=1\n" + long + b"\nb v=2\n" + quoted)
        assert [value for _, _, value in decoded.samples] == [1.0, 2.0]
        assert decoded.findings.refused[Reason.LINE_TOO_LONG] == 2
    fits = b"a " + b",".join(b"f%d=1.0000" % number for number in range(4_000))
    assert len(Decoded(b"b v=1\n" * 8_000 + fits).samples) == 12_000


def test_tags_and_keys_have_bounds() -> None:
    tags = b"".join(b",t%d=x" % number for number in range(MAX_TAGS + 1))
    assert f"more than {MAX_TAGS} tags" in Decoded(b"a" + tags + b" v=1").findings.examples[0]
    cache = InfluxCache()
    long = b"a,x=" + b"y" * 10_000 + b" " + b",".join(b"f%d=1" % number for number in range(100))
    for line in (long, long + b',s=""'):  # in columns and alone: the key is not kept once for each field
        assert len(Decoded(line, cache=cache).samples) == 100
        assert cache.size < 50_000
    Decoded(b"a,x=y v=1", cache=cache)
    assert cache.size < 50_000


def test_the_cache_keeps_to_its_limit_and_forgets_with_the_generation() -> None:
    cache = InfluxCache(limit=20_000)
    for number in range(50):
        Decoded(b"".join(b"a,x=%d v=1\n" % each for each in range(number * 10, number * 10 + 10)), cache=cache)
        assert cache.size <= 25_000
    current = cache.for_generation(5)
    assert current.size == 0
    assert current.for_generation(5) is current


def test_batches_are_small_and_new_series_come_some_at_a_time() -> None:
    decoded = Decoded(b"".join(b"a,i=%d v=1,w=2,x=3\n" % number for number in range(3_000)))
    sizes = [len(batch) for batch in decoded.batches]
    assert sum(sizes) == 9_000
    assert max(sizes) <= BATCH_ROWS
    assert sizes.count(0) > 100


TOKENS = (
    "a",
    "b",
    "v",
    "w",
    ",",
    ",",
    "=",
    "=",
    " ",
    " ",
    "\n",
    "\n",
    "1",
    "2.5",
    "3i",
    "t",
    "\\",
    '"',
    "-",
    "#",
    "\r",
)
TEXTS = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)
POINTS = st.from_regex(r"\A(a|b)(,x=[12])?(,y=z)? (v|w)=(1|-2\.5|3i|t|x|1e3)(,u=[45]u?)?( -?[1-9]{1,3})?\Z")


@given(st.lists(TEXTS | POINTS, max_size=6).map("\n".join), st.sampled_from(Precision))
def test_fuzz_columns_hold_what_lines_say_one_by_one(text: str, precision: Precision) -> None:
    """Of lines that have no quotes or backslashes, which is what columns are read of."""
    lines = [line for line in text.encode().split(b"\n") if b'"' not in line and b"\\" not in line]
    block = b"".join(line + b"\n" for line in lines)
    if not block:
        return
    columns = columns_of(block, precision, NOW)
    found: dict[int, tuple[bytes, int, list[float]]] = {}
    values = iter(columns.values.tolist())
    for line, spelling, count, time in zip(
        columns.lines.tolist(), columns.spellings, columns.counts.tolist(), columns.times.tolist(), strict=True
    ):
        found[line] = spelling, time, [next(values) for _ in range(count)]
    assert not list(values)
    assert sorted([*found, *columns.odd.tolist()]) == list(range(len(lines)))
    for number, line in enumerate(lines):
        if number in columns.odd:
            continue
        read = read_line(line, precision)
        assert read is not None
        time = NOW if read.time is None else read.time
        names, numbers = zip(*read.fields, strict=True)
        assert found[number] == (read.key + b" " + b",".join(names), time, list(numbers))


@given(st.lists(TEXTS | POINTS, max_size=6).map("\n".join))
def test_fuzz_nothing_is_lost_between_lines(text: str) -> None:
    """Good lines between garbage that is whole are read, and the others told of."""
    garbage = text.encode()
    if garbage.count(b'"') or garbage.count(b"\\"):  # what they swallow is theirs
        garbage = garbage.replace(b'"', b"").replace(b"\\", b"")
    body = b"first v=1 1\n" + garbage + b"\nlast v=2 2"
    decoded = Decoded(body, Precision.MILLISECONDS)
    named = [(labels["__name__"], time, value) for labels, time, value in decoded.samples]
    assert named[0] == ("first_v", 1, 1.0)
    assert named[-1] == ("last_v", 2, 2.0)


@given(st.binary(max_size=60) | TEXTS.map(str.encode))
def test_fuzz_garbage_is_read_or_refused(data: bytes) -> None:
    decoded = Decoded(data)
    for labels, _, _ in decoded.samples:
        assert labels["__name__"]
    for line in data.split(b"\n"):
        for read in (lambda text: read_line(text, NS), read_key):
            try:
                read(line)
            except BadInput as error:
                assert error.message
