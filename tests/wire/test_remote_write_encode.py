"""What is encoded is what another encoder writes, and what decoders read back."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import key_of, split_key
from streamgauge.testing import requests
from streamgauge.testing.receiver import Receiver
from streamgauge.testing.target import Request
from streamgauge.wire.remote_write_encode import Encoder, EncoderV1, EncoderV2, metadata_request
from streamgauge.wire.snappy import compress

texts = st.text(max_size=5)
labels = st.dictionaries(texts.filter(bool), texts.filter(bool), min_size=1, max_size=4)
bits = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([0, STALE_BITS]))
times = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(1_790_000_000_000, 1_790_000_000_999))
samples = st.lists(st.tuples(times, bits), min_size=1, max_size=5)
messages = st.lists(st.tuples(labels, samples), min_size=1, max_size=6)

Message = Sequence[tuple[dict[str, str], Sequence[tuple[int, int]]]]


def encoded(encoder: Encoder, message: Message) -> bytes:
    forms = [encoder.form(split_key(key_of(labels))) for labels, _ in message]
    rows = [row for _, samples in message for row in samples]
    return encoder.request(
        forms,
        np.array([len(samples) for _, samples in message]),
        np.array([time for time, _ in rows], np.int64),
        np.array([value for _, value in rows], np.int64).view(np.float64),
    )


def received(encoder: Encoder, body: bytes) -> Receiver:
    receiver = Receiver()
    receiver(Request("/", encoder.headers, "POST", compress(body)))
    return receiver


def rows_of(message: Message) -> list[tuple[bytes, int, int]]:
    return [(key_of(labels), time, value) for labels, samples in message for time, value in samples]


@given(messages)
def test_either_version_says_what_was_meant(message: Message) -> None:
    for encoder in (EncoderV1(), EncoderV2()):
        assert received(encoder, encoded(encoder, message)).rows == rows_of(message)


def test_the_bytes_of_1_0_are_those_of_another_encoder() -> None:
    message = [
        (
            {"__name__": f"m{at}", "b": "é" * 50, "a": "x" * (at * 40)},
            [(1_790_000_000_000 + k, at + k + 1) for k in range(at % 3 + 1)],
        )
        for at in range(1, 60)
    ]
    other = [
        requests.Series(dict(sorted(labels.items())), [(time, struct.pack("<q", value)) for time, value in samples])
        for labels, samples in message
    ]
    assert encoded(EncoderV1(), message) == requests.v1(other)


def test_symbols_are_those_of_the_request() -> None:
    encoder = EncoderV2()
    long: Message = [({"a": f"v{at}"}, [(at, at)]) for at in range(300)]
    for message in (long, long[7:9], long):
        body = encoded(encoder, message)
        assert received(encoder, body).rows == rows_of(message)
    assert len(encoded(encoder, long[7:9])) < 100
    encoder.clear()
    assert received(encoder, encoded(encoder, long)).rows == rows_of(long)


METADATA = [
    Metadata("up", "gauge", "Whether it is up.", ""),
    Metadata("took", "histogram", "How long it took.", "seconds"),
    Metadata("odd", "nonsense", "", ""),
]


def test_metadata_of_1_0_go_alone() -> None:
    found = received(EncoderV1(), metadata_request(METADATA)).metadata
    assert list(found.values()) == [*METADATA[:2], Metadata("odd", "unknown", "", "")]


def test_metadata_of_2_0_go_beside_the_samples_of_their_family() -> None:
    encoder = EncoderV2()
    message: Message = [({"__name__": name}, [(1, 1)]) for name in ("up", "took_bucket", "other", "took_sum")]
    assert received(encoder, encoded(encoder, message)).metadata == {}
    encoder.describe(METADATA)
    found = received(encoder, encoded(encoder, message))
    assert found.rows == rows_of(message)
    assert {name: (entry.type, entry.help, entry.unit) for name, entry in found.metadata.items()} == {
        "up": ("gauge", "Whether it is up.", ""),
        "took_bucket": ("histogram", "How long it took.", "seconds"),
        "took_sum": ("histogram", "How long it took.", "seconds"),
    }
