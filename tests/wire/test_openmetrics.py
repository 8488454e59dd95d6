"""OpenMetrics 1.0: what is read, what is refused and why; a remembered scrape is read as a new one would be."""

from __future__ import annotations

import random
import re
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from streamgauge.errors import BadInput
from streamgauge.wire.exposition_text import Pairs
from streamgauge.wire.openmetrics import decode
from streamgauge.wire.scraped import DROPPED, NO_STAMP, PAUSE_LINES, ScrapeCache, Scraped, merged_notes


class Target:
    def __init__(self, drop: bytes = b"") -> None:
        self.cache = ScrapeCache()
        self.names: list[tuple[tuple[bytes, bytes], ...]] = []
        self.asked = 0
        self._ids: dict[tuple[tuple[bytes, bytes], ...], int] = {}
        self._drop = drop

    def series_of(self, pairs: Pairs) -> int:
        self.asked += 1
        if pairs[0][1] == self._drop:
            return DROPPED
        key = tuple(sorted(pairs))
        if key not in self._ids:
            self._ids[key] = len(self.names)
            self.names.append(key)
        return self._ids[key]

    def scrape(self, text: str, limit: int = 0) -> Scraped:
        return finish(decode(text.encode(), self.cache, self.series_of, limit))

    def rows(self, text: str) -> list[tuple[str, str, int]]:
        scraped = self.scrape(text)
        stamps = [NO_STAMP] * len(scraped.series) if scraped.stamps is None else scraped.stamps.tolist()
        columns = (scraped.series.tolist(), scraped.values.tolist(), stamps)
        return [
            (spelled(self.names[series]), repr(value), stamp) for series, value, stamp in zip(*columns, strict=True)
        ]


def spelled(pairs: tuple[tuple[bytes, bytes], ...]) -> str:
    labels = {name.decode(): value.decode() for name, value in pairs}
    name = labels.pop("__name__")
    return name + "".join(f" {key}={value}" for key, value in labels.items())


def finish(reading: Generator[None, None, Scraped]) -> Scraped:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            scraped: Scraped = end.value
            return scraped


WHOLE = """\
# TYPE requests_seconds counter
# UNIT requests_seconds seconds
# HELP requests_seconds A text with \\\\ and \\n and \\".
requests_seconds_total{path="/a b",code="200"} 17.0 # {trace="x # y"} 0.5 1.5
requests_seconds_created{path="/a b",code="200"} 1.5e9
requests_seconds_total{path="}"} 1
# TYPE size histogram
size_bucket{le="1"} 0
size_bucket{le="1e6"} 2 # {} 3
size_bucket{le="+Inf"} 2
size_count 2
size_sum 7.5
# TYPE level gaugehistogram
level_bucket{le="-1"} 1
level_bucket{le="+Inf"} 3
level_gcount 3
level_gsum -4
# TYPE lag summary
lag{quantile="0.5"} NaN
lag{quantile="1"} 2
lag_count 2
lag_sum 3
# TYPE build info
build_info{version="1"} 1
# TYPE state stateset
state{state="on"} 1
state{state="off"} 0
{"name.with.dots","label-x"="y"} +Inf
plain NaN
# EOF
"""


def test_everything_at_once() -> None:
    target = Target()
    rows = target.rows(WHOLE)
    assert [name for name, _, _ in rows] == [
        "requests_seconds_total code=200 path=/a b",
        "requests_seconds_created code=200 path=/a b",
        "requests_seconds_total path=}",
        "size_bucket le=1.0",
        "size_bucket le=1e+06",
        "size_bucket le=+Inf",
        "size_count",
        "size_sum",
        "level_bucket le=-1",
        "level_bucket le=+Inf",
        "level_gcount",
        "level_gsum",
        "lag quantile=0.5",
        "lag quantile=1.0",
        "lag_count",
        "lag_sum",
        "build_info version=1",
        "state state=on",
        "state state=off",
        "name.with.dots label-x=y",
        "plain",
    ]
    assert [value for _, value, _ in rows[:8]] == ["17.0", "1500000000.0", "1.0", "0.0", "2.0", "2.0", "2.0", "7.5"]
    asked = target.asked
    again = target.scrape(WHOLE.replace("17.0", "18").replace('"x # y"} 0.5 1.5', '"z"} 0.75'))
    assert again.same
    assert again.exemplars == 2
    assert again.values[0] == 18.0
    assert target.asked == asked
    notes = merged_notes(target.cache.chunks)
    assert notes["requests_seconds"].help == 'A text with \\ and \n and ".'
    assert (notes["requests_seconds"].type, notes["requests_seconds"].unit) == ("counter", "seconds")
    assert (notes["state"].type, notes["level"].type) == ("stateset", "gaugehistogram")


def test_times_are_seconds() -> None:
    target = Target()
    for _ in range(2):
        rows = target.rows("a 1 1.5\na 2 1700000000.1239\na 3 99999999999999999999\n# EOF")
        assert [stamp for _, _, stamp in rows] == [1500, 1_700_000_000_123, 1 << 62]
    assert target.rows("a 1\n# EOF\n") == [("a", "1.0", NO_STAMP)]


def test_a_sample_that_repeats_another_is_left_out() -> None:
    target = Target()
    for _ in range(2):
        scraped = target.scrape("a 1 1\na 2 1\na 3 2\n# EOF\n")
        assert (scraped.values.tolist(), scraped.duplicates) == ([1.0, 3.0], 1)


def test_limits_and_dropped_series() -> None:
    target = Target(drop=b"b")
    for _ in range(2):
        scraped = target.scrape("a 1\nb 2\nc 3\n# EOF\n", limit=2)
        assert (scraped.lines, scraped.kept, scraped.values.tolist()) == (3, 2, [1.0, 3.0])
    with pytest.raises(BadInput, match="line 4: sample_limit exceeded: there are more than 2 samples"):
        target.scrape("a 1\nb 2\nc 3\nd 4\n# EOF\n", limit=2)


HISTOGRAM = '# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_count 2\nh_sum 3\n# EOF\n'

REFUSED = [
    ("", "ends with the line # EOF"),
    ("a 1\n", "ends with the line # EOF"),
    ("a 1\n# EOF\n\n", "ends with the line # EOF"),
    ("# EOF\na 1\n# EOF\n", "line 1: expected # TYPE"),
    ("\n# EOF\n", "line 1: expected a metric name"),
    ("# a comment\n# EOF\n", "line 1: expected # TYPE"),
    ("# TYPE a untyped\n# EOF\n", 'line 1: there is no metric type "untyped"'),
    ("# TYPE a gauge \n# EOF\n", 'line 1: there is no metric type "gauge "'),
    ("# HELP a\n# EOF\n", "line 1: expected # TYPE"),
    ("# UNIT a b\n# EOF\n", 'the name "a" does not end with its unit, "b"'),
    ("# TYPE a_b info\n# UNIT a_b b\n# EOF\n", "metrics of type info have none"),
    ("# TYPE a gauge\n# TYPE a gauge\n# EOF\n", 'line 2: a second TYPE of "a"'),
    ("# TYPE a gauge\na 1\n# HELP a x\n# EOF\n", 'line 3: metadata of "a" after its samples'),
    ("a 1\nb 1\na 1\n# EOF\n", 'the name "a" is taken'),
    ("# TYPE a_total gauge\n# TYPE a counter\n# EOF\n", 'the name "a_total" is taken'),
    (" a 1\n# EOF\n", "line 1: expected a metric name"),
    ("a  1\n# EOF\n", "line 1: expected a value behind one space"),
    ("a 1 \n# EOF\n", "line 1: expected a timestamp, an exemplar, or nothing"),
    ("a\t1\n# EOF\n", "line 1: expected a value"),
    ("a 0x1\n# EOF\n", 'line 1: "0x1" is no value'),
    ("a 1 NaN\n# EOF\n", 'line 1: "NaN" is no timestamp'),
    ("a 1 1 1\n# EOF\n", "line 1: expected an exemplar, or nothing"),
    ("a 1#\n# EOF\n", 'line 1: "1#" is no value'),
    ('a{b="1",} 1\n# EOF\n', 'line 1: expected name="value"'),
    ('a{b="1", c="2"} 1\n# EOF\n', 'line 1: expected name="value"'),
    ('a{b="1"c="2"} 1\n# EOF\n', "line 1: expected a comma"),
    ('a{b="1",b="2"} 1\n# EOF\n', "line 1: a label of"),
    ("a{b} 1\n# EOF\n", 'line 1: expected ="value"'),
    ('a{"b"} 1\n# EOF\n', 'line 1: expected ="value"'),
    ('a{b="1"}1\n# EOF\n', "line 1: expected a value"),
    ('{b="1"} 1\n# EOF\n', "line 1: expected a metric name"),
    ("# TYPE a counter\na 1\n# EOF\n", 'the name "a" is taken'),
    ("# TYPE a counter\na_total -1\n# EOF\n", "line 2: a count or sum must be neither NaN nor negative"),
    ("# TYPE a counter\na_total NaN\n# EOF\n", "line 2: a count or sum must be neither NaN nor negative"),
    ("# TYPE a info\na_info 2\n# EOF\n", "line 2: an info metric has the value 1"),
    ('# TYPE a stateset\na{a="x"} 0.5\n# EOF\n', "line 2: a state has the value 0 or 1"),
    ("# TYPE a stateset\na 1\n# EOF\n", "line 2: a sample of the state set"),
    ("# TYPE a summary\na 1\n# EOF\n", 'line 2: a sample of the summary "a" has no quantile'),
    ('# TYPE a summary\na{quantile="2"} 1\n# EOF\n', 'line 2: a sample of the summary "a" has no quantile'),
    ('# TYPE a summary\na{quantile="1"} -1\n# EOF\n', "line 2: a quantile must not be negative"),
    (HISTOGRAM.replace('le="1"', 'le="x"'), "line 2: a bucket of"),
    (HISTOGRAM.replace('le="1"', 'l="1"'), "line 2: a bucket of"),
    (HISTOGRAM.replace("+Inf", "0.5"), "line 3: buckets of"),
    (HISTOGRAM.replace("+Inf", "5"), 'a histogram of "h" has no bucket +Inf'),
    (HISTOGRAM.replace('"1"} 1', '"1"} 3'), "line 3: a bucket has a smaller value than the one before it"),
    (HISTOGRAM.replace("count 2", "count 3"), "line 4: the count is not the value of the bucket +Inf"),
    (HISTOGRAM.replace("h_sum 3\n", ""), 'a histogram of "h" has a sum or a count, and not both'),
    (HISTOGRAM.replace('"1"', '"-1"'), 'a histogram of "h" has a sum although it has negative buckets'),
    (HISTOGRAM.replace("sum 3", "sum NaN"), "line 5: a count or sum must be neither NaN nor negative"),
    ('# TYPE a gaugehistogram\na_bucket{le="+Inf"} 1\na_gcount 1\na_gsum -1\n# EOF\n', "line 4: a count or sum"),
    ("# TYPE a gauge\na 1 # {} 1\n# EOF\n", 'line 2: "a" has an exemplar: only buckets and totals may'),
    ("# TYPE a counter\na_total 1 # {}\n# EOF\n", "line 2: expected an exemplar's value"),
    ("# TYPE a counter\na_total 1 # {} 1 NaN\n# EOF\n", 'line 2: "NaN" is no timestamp'),
    ("# TYPE a counter\na_total 1 # {} 1 1 1\n# EOF\n", "line 2: expected nothing behind an exemplar"),
    (
        f'# TYPE a counter\na_total 1 # {{b="{"é" * 128}"}} 1\n# EOF\n',
        "line 2: an exemplar's labels have 129 characters",
    ),
    ('a{b="1"} 1\na{b="2"} 1\na{b="1"} 1\n# EOF\n', 'line 3: samples of a metric of "a" do not stand together'),
    ("a 1 2\na 1 1\n# EOF\n", 'line 2: timestamps of a metric of "a" go back'),
    ("a 1\na 1 1\n# EOF\n", 'line 2: some samples of a metric of "a" have timestamps, others not'),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_is_refused_and_why(text: str, words: str) -> None:
    target = Target()
    with pytest.raises(BadInput) as refused:
        target.scrape(text)
    assert words in refused.value.message
    if text.endswith("# EOF\n") and "exemplar" not in words and ", c" not in text:
        with pytest.raises(ValueError):  # the reference parser agrees
            list(text_string_to_metric_families(text))


def test_values_are_checked_in_a_scrape_that_is_known(caplog: pytest.LogCaptureFixture) -> None:
    target = Target()
    target.scrape(WHOLE)
    for old, new, words in (
        (" 17.0", " -1", "line 4: a count or sum"),
        ('{le="1e6"} 2', '{le="1e6"} 3', "line 10: a bucket has a smaller value"),
        ("size_count 2", "size_count 4", "line 11: the count is not"),
        ("level_gsum -4", "level_gsum NaN", "line 17: a sum must not be NaN"),
        ('{version="1"} 1', '{version="1"} 0', "line 24: an info metric"),
        ('{state="on"} 1', '{state="on"} 7', "line 26: a state"),
        ('quantile="1"} 2', 'quantile="1"} -2', "line 20: a quantile"),
        ("} 0.5 1.5", "} 0.5 x", 'line 4: "x" is no timestamp'),
        ("plain NaN", "plain NaN # {} 1", 'line 29: "plain" has an exemplar'),
    ):
        assert old in WHOLE
        with pytest.raises(BadInput, match=words):
            target.scrape(WHOLE.replace(old, new))
        assert target.scrape(WHOLE).same


def family(name: str, chance: random.Random) -> list[str]:
    kinds = ["counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset", "unknown"]
    kind = chance.choice(kinds)
    lines = [f"# TYPE {name} {kind}"]
    for group in chance.sample(["1", "2", "3"], chance.randint(1, 2)):
        own, number = f'g="{group}"', str(chance.randint(0, 3))
        match kind:
            case "counter":
                lines.append(f"{name}_total{{{own}}} {number}" + chance.choice(["", ' # {a="b"} 1']))
            case "histogram" | "gaugehistogram":
                less, more = sorted((chance.randint(0, 5), chance.randint(0, 5)))
                prefix = "g" if kind == "gaugehistogram" else ""
                lines += [f'{name}_bucket{{{own},le="1"}} {less}', f'{name}_bucket{{{own},le="+Inf"}} {more}']
                lines += [f"{name}_{prefix}count{{{own}}} {more}", f"{name}_{prefix}sum{{{own}}} {number}"]
            case "summary":
                lines += [
                    f'{name}{{{own},quantile="0.5"}} {number}',
                    f"{name}_sum{{{own}}} 1",
                    f"{name}_count{{{own}}} 1",
                ]
            case "info":
                lines.append(f"{name}_info{{{own}}} 1")
            case "stateset":
                lines += [f'{name}{{{own},{name}="x"}} 1', f'{name}{{{own},{name}="y"}} 0']
            case _:
                lines.append(f"{name}{{{own}}} " + chance.choice(["1", "-2", "NaN", "+Inf"]))
    return lines


def changed(lines: list[str], chance: random.Random) -> list[str]:
    """With a line lost, doubled, moved or with another value, or a letter in or out."""
    lines = list(lines)
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    line, cut = lines[at], chance.randrange(len(lines[at]))
    match chance.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, line)
        case 2:
            lines[at], lines[other] = lines[other], line
        case 3:
            lines[at] = line[:cut] + chance.choice(list(' "{},#1-a\\')) + line[cut:]
        case 4:
            lines[at] = line[:cut] + line[cut + 1 :]
        case 5:
            lines[at] = line.rpartition(" ")[0] + " " + chance.choice(["NaN", "-1", "0", "5", "+Inf", "x", "1 2"])
        case _:
            pass
    return lines


@given(st.randoms(use_true_random=False))
def test_fuzz_a_remembered_scrape_is_read_as_a_new_one(chance: random.Random) -> None:
    lines = [line for name in chance.sample(["a", "b", "a_b"], chance.randint(1, 3)) for line in family(name, chance)]
    target = Target()
    target.scrape("\n".join([*lines, "# EOF"]))
    for _ in range(3):
        lines = changed(lines, chance) or ["x 1"]
        text = "\n".join([*lines, "# EOF", ""])
        outcomes = []
        for one in (target, Target()):
            try:
                outcomes.append(one.rows(text))
            except BadInput as error:
                outcomes.append([(error.message, "", 0)])
        assert outcomes[0] == outcomes[1]


NOT_IN_THE_SPECIFICATION = "must be an integer|Mix of timestamp presence within a group: \\w+_info"
"""What only the reference parser refuses: counts with decimals; infos of several metrics of which some have times."""


@given(st.randoms(use_true_random=False))
def test_fuzz_what_the_reference_parser_refuses_is_refused(chance: random.Random) -> None:
    lines = [line for name in chance.sample(["a", "b", "a_b"], chance.randint(1, 3)) for line in family(name, chance)]
    text = "\n".join([*changed(lines, chance), "# EOF", ""])
    try:
        list(text_string_to_metric_families(text))
    except KeyError:
        return  # the reference parser takes it for a native histogram, and finds a part missing
    except ValueError as error:
        if not re.search(NOT_IN_THE_SPECIFICATION, str(error)):
            with pytest.raises(BadInput):
                Target().scrape(text)


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"a 1\n", b"# TYPE a counter\n", b"# EOF\n"]), max_size=12))
def test_fuzz_any_bytes_are_read_or_refused(parts: list[bytes]) -> None:
    target = Target()
    for body in (b"".join(parts), b"".join(parts[1:]), b"".join(parts)):
        try:
            scraped = finish(decode(body, target.cache, target.series_of))
        except BadInput:
            continue
        assert len(scraped.series) == len(scraped.values) <= scraped.lines


def test_other_tasks_have_their_turn_while_exemplars_are_taken_out() -> None:
    lines = 10 * PAUSE_LINES
    body = b"# TYPE a counter\n" + b"".join(b'a_total{n="%d"} 1 # {x="y"} 1\n' % n for n in range(lines)) + b"# EOF\n"
    target = Target()
    finish(decode(body, target.cache, target.series_of))
    reading = decode(body, target.cache, target.series_of)
    pauses = 0
    try:
        while True:
            next(reading)
            pauses += 1
    except StopIteration as end:
        assert (end.value.exemplars, end.value.same) == (lines, True)
    assert pauses >= 10
