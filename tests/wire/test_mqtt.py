from __future__ import annotations

import pytest

from streamgauge.errors import BadInput
from streamgauge.wire import mqtt


def test_packets_are_those_of_the_specification() -> None:
    assert mqtt.connect() == b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
    assert mqtt.connect("u", "pw") == b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x00\x00\x00\x00\x01u\x00\x02pw"
    assert mqtt.publish("a/b", b"xy") == b"\x30\x07\x00\x03a/bxy"


@pytest.mark.parametrize(
    ("size", "length"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_384, b"\x80\x80\x01")]
)
def test_lengths_have_seven_bits_a_byte(size: int, length: bytes) -> None:
    assert mqtt.remaining(length) == size
    payload = bytes(max(size - 3, 0))
    if size >= 3:
        assert mqtt.publish("t", payload) == b"\x30" + length + b"\x00\x01t" + payload
    for cut in range(1, len(length)):
        assert mqtt.remaining(length[:cut]) is None


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x80\x08"])
def test_a_packet_that_is_too_long_is_refused_before_it_is_read(length: bytes) -> None:
    with pytest.raises(BadInput):
        mqtt.remaining(length)


def test_a_refusal_says_why() -> None:
    mqtt.check_accepted(mqtt.CONNACK, b"\x00\x00")
    for kind, body, words in (
        (mqtt.CONNACK, b"\x00\x04", "user or password"),
        (mqtt.CONNACK, b"\x00\x63", "refuses us"),
        (mqtt.CONNACK, b"", "no MQTT broker"),
        (3, b"\x00\x00", "no MQTT broker"),
    ):
        with pytest.raises(BadInput, match=words):
            mqtt.check_accepted(kind, body)
    with pytest.raises(BadInput):
        mqtt.publish("t" * 70_000, b"")
