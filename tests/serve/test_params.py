"""Parameters are read as Prometheus reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.serve.params import (
    MAX_TIME,
    MIN_TIME,
    Params,
    parse_duration,
    parse_time,
    unescape_label_name,
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("1435781430", 1_435_781_430_000),
        ("1435781430.781", 1_435_781_430_781),
        ("1435781430.7816", 1_435_781_430_782),
        ("-1.5", -1_500),
        ("1e3", 1_000_000),
        (".5", 500),
        ("2015-07-01T20:10:30.781Z", 1_435_781_430_781),
        ("2015-07-01T20:10:30.7819Z", 1_435_781_430_781),
        ("2015-07-01T20:10:30Z", 1_435_781_430_000),
        ("2015-07-01T22:10:30+02:00", 1_435_781_430_000),
        ("2015-07-01T12:40:30-07:30", 1_435_781_430_000),
        ("1969-12-31T23:59:59.5Z", -500),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799_000 + 86_340_000),
        ("-292273086-05-16T16:47:06Z", MIN_TIME),
        ("292277025-08-18T07:12:54.999999999Z", MAX_TIME),
    ],
)
def test_times(text: str, milliseconds: int):
    assert parse_time(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", " 1", "1 ", "1_000", "0x10", "inf", "NaN", "-", ".", "1e", "1e999", "9223372036854775807"),
        *("-9223372036854775808", "1e9999999", "٣", "2015-07-01", "2015-07-01T20:10:30", "2015-07-01 20:10:30Z"),
        *("2015-07-01t20:10:30z", "2015-02-30T20:10:30Z", "2015-07-01T24:00:00Z", "2015-07-01T20:10:30+24:00"),
        *("2015-07-01T20:10:30+0200", "2015-07-01T20:10:60Z", "0000-01-01T00:00:00Z", "2015-07-01T20:10:30.Z"),
    ],
)
def test_what_is_not_a_time(text: str):
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        *(("15", 15_000), ("0.5", 500), ("1.001", 1_001), ("-1", -1_000), ("0", 0), ("1e1", 10_000)),
        *(("5m", 300_000), ("1h30m", 5_400_000), ("500ms", 500), ("1d", 86_400_000), ("2w", 1_209_600_000)),
        ("1y1w1d1h1m1s1ms", 31_536_000_000 + 604_800_000 + 86_400_000 + 3_661_001),
    ],
)
def test_durations(text: str, milliseconds: int):
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["", "x", "1x", "m", "30m1h", "1h 30m", "1.5h", "-5m", "1e300", "9" * 40 + "y", "9" * 5000 + "s", "1e11", "inf"],
)
def test_what_is_not_a_duration(text: str):
    assert parse_duration(text) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_parsers(text: str):
    for parsed in (parse_time(text), parse_duration(text)):
        assert parsed is None or MIN_TIME <= parsed <= MAX_TIME


@given(st.integers(-(2**40), 2**40))
def test_unix_seconds_are_exact_to_the_millisecond(milliseconds: int):
    assert parse_time(f"{milliseconds / 1000:.3f}") == milliseconds


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        ("job", "job"),
        ("U__http_2e_status", "http.status"),
        ("U__a__b", "a_b"),
        ("U___1F600_", "😀"),
        ("U__x_10ffff_", "x\U0010ffff"),
        ("U__", ""),
        # not well escaped: taken as they are
        *((name, name) for name in ("U__a_", "U__a_zz_", "U__a_D800_", "U__a_110000_", "U__a_1234567_", "U__a_2e")),
    ],
)
def test_escaped_label_names(escaped: str, name: str):
    assert unescape_label_name(escaped) == name


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_label_name_survives_escaping(name: str):
    plain = "abcdefghijklmnopqrstuvwxyz"
    escaped = "".join(c if c in plain else "__" if c == "_" else f"_{ord(c):x}_" for c in name)
    assert unescape_label_name(f"U__{escaped}") == name


def test_messages_name_the_parameter_and_show_little_of_its_value():
    params = Params(
        [("start", "x" * 10_000), ("step", "1x"), ("limit", "-1"), ("time", "")], ("start", "step", "limit", "time")
    )
    with pytest.raises(BadInput, match=r'invalid parameter "start": cannot parse "x{100}…" to a valid timestamp'):
        params.time("start")
    with pytest.raises(BadInput, match='invalid parameter "step": cannot parse "1x" to a valid duration'):
        params.duration("step")
    with pytest.raises(BadInput, match='invalid parameter "limit": limit must be non-negative'):
        params.limit()
    with pytest.raises(BadInput, match='invalid parameter "time": cannot parse "" to a valid timestamp'):
        params.time("time")
    assert params.time("time", default=5) == 5


def test_only_declared_parameters_can_be_read():
    with pytest.raises(AssertionError):
        Params([], ("query",)).text("time")
