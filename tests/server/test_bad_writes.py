"""What a broken or hostile sender can put into a write: each is answered for what it is, and the server goes on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from streamgauge.testing import requests
from streamgauge.testing.requests import STALE, V1, V2, Series
from streamgauge.testing.server import Response, ServerProcess, run_command

pytestmark = pytest.mark.usefixtures("responsive")

NOW = int(time.time() * 1000)
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
WRITTEN = "x-prometheus-remote-write-samples-written"

both_messages = pytest.mark.parametrize("message", [V1, V2], ids=["v1", "v2"])


def assert_refused(answer: Response, *parts: str, status: int = 400, written: int = 0) -> None:
    assert answer.status == status, answer.text
    for part in parts:
        assert part in answer.text
    assert answer.headers[WRITTEN] == str(written)


def one(labels: object, time: int = NOW, value: float | bytes = 1.0) -> Series:
    return Series(labels, [(time, value)])  # type: ignore[arg-type]


@both_messages
def test_not_snappy(server: ServerProcess, message: str) -> None:
    assert_refused(server.send(b"\xff" * 100, message), "snappy", "decompressed length")
    assert_refused(server.send(b"", message), "snappy")
    assert_refused(server.send(b'{"json": true}', message), "snappy")


@both_messages
def test_damaged_snappy(server: ServerProcess, message: str) -> None:
    block = requests.snappy(requests.v1([one({"__name__": "damaged", "i": str(i)}) for i in range(100)]))
    assert_refused(server.send(block[:-3], message), "snappy", "damaged or cut short")
    assert_refused(server.send(block + b"more", message), "snappy", "damaged or cut short")
    assert server.query("damaged") == []


@both_messages
def test_a_bomb_is_refused_by_what_it_announces(server: ServerProcess, message: str) -> None:
    limit = 32 << 20
    assert_refused(server.send(requests.varint(0xFFFF_FFFF) + bytes(100), message), str(limit), status=413)
    assert_refused(server.send(requests.snappy(bytes(limit + 1)), message), str(limit + 1), status=413)


@both_messages
def test_a_bomb_within_the_limit_is_read_and_refused(server: ServerProcess, message: str) -> None:
    assert_refused(server.send(requests.snappy(bytes(30 << 20)), message), "protobuf")


def test_a_body_over_the_limit(server: ServerProcess) -> None:
    assert_refused(server.send(os.urandom((16 << 20) + 1)), str(16 << 20), status=413)


@both_messages
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x0a\xff\xff\xff\xff\xff", "cut off"),
        (b"\x0a\x05\x0a", "byte"),
        (b"\x00\x00", "number 0"),
        (b"\x0b\x0c", "wire type"),
        (b"\x2a\x02\x08\x01", ""),
        (b"\xff" * 11, "byte"),
    ],
)
def test_malformed_protobuf(server: ServerProcess, message: str, content: bytes, why: str) -> None:
    if message == V2:
        content = requests.nested(4, b"") + content
    answer = server.send(requests.snappy(content), message)
    assert answer.status == 400 or (message == V1 and content[0] == 0x2A)  # a field that 1.0 does not know
    assert why in answer.text or message == V2


@both_messages
def test_random_changes_of_a_request_never_give_a_server_error(server: ServerProcess, message: str) -> None:
    """What the fuzz tests do with the decoders, through the whole server."""
    chance = random.Random(7)
    encode = requests.v1 if message == V1 else requests.v2
    content = encode([Series({"__name__": "fuzz", "i": str(i)}, [(NOW - i, float(i))] * 3) for i in range(20)])
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        answer = server.send(requests.snappy(bytes(changed)), message)
        assert answer.status in (204, 400), (bytes(changed), answer.text)
        assert answer.status == 204 or answer.text.strip()


@both_messages
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([("__name__", "x"), ("a", b"\xff\xfe")], 'the value of label "a" is not UTF-8'),
        ([("__name__", "x"), (b"\xff\xfe", "a")], r'the name of label "\xff\xfe" is not UTF-8'),
        ([("__name__", b"\xc3")], 'the value of label "__name__" is not UTF-8'),
        ([("__name__", "x"), ("", "a")], "a label has an empty name"),
        ([], "a series needs at least one label"),
        ([("__name__", "")], "a series needs at least one label"),
        ([("__name__", "x"), ("a", "1"), ("a", "2")], 'label "a" occurs more than once'),
        ([("__name__", "x"), ("a", "1"), ("a", "1")], 'label "a" occurs more than once'),
        ([("__name__", "x"), ("a", "v" * 10_000_000)], "has 10000000 bytes; the limit is 65536"),
        ([("__name__", "x"), ("n" * 10_000_000, "v")], "has 10000000 bytes; the limit is 1024"),
        ([("__name__", "n" * 10_000_000)], "has 10000000 bytes; the limit is 65536"),
        ([(f"l{i}", "v") for i in range(300)], "has 300 labels; the limit is 256"),
    ],
)
def test_labels_that_are_refused(
    server: ServerProcess, message: str, labels: list[tuple[str | bytes, str | bytes]], why: str
) -> None:
    """Only the series that has them: the one beside it is stored."""
    beside = {"__name__": "beside", "case": str(random.random())}
    answer = server.write([one(labels), one(beside)], message)
    assert_refused(answer, why, "1 invalid_labels", written=1)
    assert len(answer.text) < 1000
    assert server.samples(f'beside{{case="{beside["case"]}"}}', NOW / 1000) == [(NOW, "1")]


@both_messages
def test_labels_in_any_order_and_empty_ones_mean_the_same_series(server: ServerProcess, message: str) -> None:
    name = ("__name__", f"reordered_{message[-7:-5]}")
    server.write([one([("b", "2"), name, ("a", "1")], NOW - 2)], message)
    server.write([one([name, ("a", "1"), ("b", "2")], NOW - 1)], message)
    server.write([one([name, ("a", "1"), ("b", "2"), ("c", "")], NOW)], message)
    assert server.samples(name[1], NOW / 1000) == [(NOW - 2, "1"), (NOW - 1, "1"), (NOW, "1")]
    assert server.query(name[1], NOW / 1000)[0]["metric"] == {"__name__": name[1], "a": "1", "b": "2"}


@both_messages
def test_both_ends_of_time(server: ServerProcess, message: str) -> None:
    metric = f"ends_{message[-7:-5]}"
    first = -62_135_596_800_000  # the year 1
    for refused in (INT64_MIN, INT64_MIN + 1, -(1 << 62), first - 1):
        assert_refused(server.write([one({"__name__": metric}, refused)], message), str(refused), "too_old")
    for refused in (INT64_MAX, INT64_MAX - 1, 1 << 62, NOW + 2 * 86_400_000):
        assert_refused(server.write([one({"__name__": metric}, refused)], message), str(refused), "too_new")
    for stored in (first, -1, 0, 1, NOW):
        assert server.write([one({"__name__": metric}, stored)], message).status == 204
        assert server.samples(metric, stored / 1000, seconds=1)[-1] == (stored, "1")


@both_messages
def test_every_kind_of_number_comes_back_as_it_went(server: ServerProcess, message: str) -> None:
    numbers = {
        float("nan"): "NaN",
        float("inf"): "+Inf",
        float("-inf"): "-Inf",
        -0.0: "-0",
        5e-324: "5e-324",
        -2.2250738585072009e-308: "-2.225073858507201e-308",
        1.7976931348623157e308: "1.7976931348623157e+308",
        0.1 + 0.2: "0.30000000000000004",
    }
    metric = f"numbers_{message[-7:-5]}"
    sent = [(NOW + at, number) for at, number in enumerate(numbers)]
    assert server.write([Series({"__name__": metric}, [*sent, (NOW + 100, STALE)])], message).status == 204
    expected = [(NOW + at, text) for at, text in enumerate(numbers.values())]
    assert server.samples(metric, NOW / 1000 + 1) == expected
    assert server.query(metric, NOW / 1000 + 1) == []  # stale


@both_messages
def test_metadata_that_is_refused(server: ServerProcess, message: str) -> None:
    name = f"described_{message[-7:-5]}"
    long = ("gauge", "h" * 10_000_000, "")
    if message == V1:
        answer = server.send(requests.snappy(requests.v1([one({"__name__": name})], {name: long})))
    else:
        answer = server.write([Series({"__name__": name}, [(NOW, 1.0)], metadata=long)], V2)
    assert_refused(answer, "1 invalid_metadata", "the limit is 16384", written=1)
    assert server.data_of("/api/v1/metadata").get(name) is None


def test_other_media(server: ServerProcess) -> None:
    body = requests.snappy(requests.v1([one({"__name__": "media"})]))
    for changed, part in (
        ({"content-type": "application/json"}, "application/json"),
        ({"content-type": "application/x-protobuf;proto=other.Request"}, "other.Request"),
        ({"content-encoding": "gzip"}, "gzip"),
    ):
        answer = server.request("POST", "/api/v1/write", body, requests.headers() | changed)
        assert_refused(answer, part, status=415)
    assert server.get("/api/v1/write").status == 405
    assert server.query("media") == []


def test_the_oldest_time_survives_compaction(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server()
    first = -62_135_596_800_000
    assert server.write([Series({"__name__": "old"}, [(first, 1.0), (-1, 2.0), (NOW, 3.0)])]).status == 204
    assert server.stop() == 0
    for command in ("compact", "check", "inspect"):
        done = run_command(command, str(server.data))
        assert done.returncode == 0, done.stderr
    again = start_server(data=server.data)
    assert [again.samples("old", time / 1000, seconds=1) for time in (first, -1, NOW)] == [
        [(first, "1")],
        [(-1, "2")],
        [(NOW, "3")],
    ]
