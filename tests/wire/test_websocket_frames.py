"""Frames are read wherever the bytes are cut, as another implementation writes them, and what is wrong ends them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.utils import accept_key as their_accept_key
from websockets.utils import apply_mask

from streamgauge.wire.websocket_frames import (
    Code,
    End,
    FrameReader,
    Incoming,
    Opcode,
    accept_key,
    close_frame,
    frame,
)


def client(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    return Frame(TheirOpcode(opcode), payload, fin=fin).serialize(mask=True)


def read(pieces: Iterable[bytes], limit: int = 1000) -> Incoming:
    reader = FrameReader(limit, apply_mask)
    whole = Incoming()
    for piece in pieces:
        incoming = reader.feed(piece)
        whole.messages += incoming.messages
        whole.ping = incoming.ping if incoming.ping is not None else whole.ping
        whole.end = incoming.end or whole.end
    return whole


def every_way(data: bytes, limit: int = 1000) -> Incoming:
    whole = read([data], limit)
    for step in (1, 2, 3, 7, 50):
        assert read([data[at : at + step] for at in range(0, len(data), step)], limit) == whole
    return whole


def test_messages_of_every_size_are_read() -> None:
    sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]
    messages = [bytes([97 + size % 26]) * size for size in sizes]
    data = b"".join(client(Opcode.TEXT, message) for message in messages)
    assert read([data], 1 << 20) == Incoming(messages)
    assert read([data[at : at + 1000] for at in range(0, len(data), 1000)], 1 << 20) == Incoming(messages)
    assert every_way(client(Opcode.TEXT, b"") + client(Opcode.BINARY, b"x")) == Incoming([b"", b"x"])


def test_a_large_frame_is_read_as_it_comes() -> None:
    """The mask goes on where it was, wherever the bytes are cut; what is behind the frame is read, too."""
    large = bytes(range(256)) * 300
    data = (
        client(Opcode.TEXT, b"a", fin=False)
        + client(Opcode.CONTINUATION, large, fin=False)
        + client(Opcode.CONTINUATION, large)
        + client(Opcode.BINARY, large)
        + client(Opcode.TEXT, b"b")
        + client(Opcode.BINARY, b"")
    )
    whole = Incoming([b"a" + large + large, large, b"b"], end=End(Code.NORMAL))
    for step in (1_000, 1_001, 70_003, len(data)):
        assert read([data[at : at + step] for at in range(0, len(data), step)], 1 << 20) == whole


def test_a_flood_of_frames_is_read_a_few_thousand_at_a_time() -> None:
    for flood, messages in ((client(Opcode.TEXT, b"x"), 10_000), (client(Opcode.PING, b"y"), 0)):
        reader = FrameReader(1000, apply_mask)
        found = len(reader.feed(flood * 10_000 + client(Opcode.TEXT, b"z")[:3]).messages)
        turns = 1
        while reader.more:
            more = len(reader.feed(b"").messages)
            assert more <= 4096
            found, turns = found + more, turns + 1
        assert (found, turns) == (messages, 3)
        assert reader.feed(client(Opcode.TEXT, b"z")[3:]).messages != []


def test_fragments_are_one_message_and_control_frames_may_come_between() -> None:
    data = (
        client(Opcode.TEXT, b"a", fin=False)
        + client(Opcode.PING, b"1")
        + client(Opcode.CONTINUATION, b"", fin=False)
        + client(Opcode.PONG, b"x")
        + client(Opcode.CONTINUATION, b"b")
        + client(Opcode.BINARY, b"c", fin=False)
        + client(Opcode.CONTINUATION, b"")
        + client(Opcode.PING, b"2")
    )
    assert every_way(data) == Incoming([b"ab", b"c"], b"2")


@pytest.mark.parametrize(
    "terminator",
    [
        client(Opcode.BINARY, b""),
        client(Opcode.BINARY, b"", fin=False) + client(Opcode.CONTINUATION, b""),
    ],
)
def test_an_empty_binary_message_ends_the_stream(terminator: bytes) -> None:
    data = client(Opcode.TEXT, b"a") + client(Opcode.TEXT, b"") + terminator + client(Opcode.TEXT, b"b")
    assert every_way(data) == Incoming([b"a", b""], end=End(Code.NORMAL))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", 1000),
        (Close(1000, "bye").serialize(), 1000),
        (Close(3000, "").serialize(), 3000),
        (b"\x03", 1002),
        ((1005).to_bytes(2), 1002),
        ((999).to_bytes(2), 1002),
        ((1000).to_bytes(2) + b"\xff", 1007),
    ],
)
def test_a_close_frame_ends_the_stream_and_names_the_answer(payload: bytes, code: int) -> None:
    incoming = every_way(client(Opcode.TEXT, b"a") + client(Opcode.CLOSE, payload) + b"junk")
    assert incoming.messages == [b"a"]
    assert incoming.end is not None
    assert (incoming.end.code, incoming.end.closed) == (code, True)


def raw(first: int, second: int, rest: bytes = bytes(4)) -> bytes:
    return bytes((first, second)) + rest


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(TheirOpcode.TEXT, b"a").serialize(mask=False), 1002),
        (raw(0xC1, 0x80), 1002),
        (raw(0x83, 0x80), 1002),
        (raw(0x8B, 0x80), 1002),
        (raw(0x09, 0x80), 1002),
        (raw(0x89, 0xFE, (126).to_bytes(2) + bytes(4)), 1002),
        (raw(0x80, 0x80), 1002),
        (client(Opcode.TEXT, b"a", fin=False) + client(Opcode.TEXT, b"b"), 1002),
        (client(Opcode.TEXT, b"x" * 1001), 1009),
        (raw(0x81, 0xFF, (1 << 63).to_bytes(8) + bytes(4)), 1009),
        (client(Opcode.TEXT, b"x" * 600, fin=False) + client(Opcode.CONTINUATION, b"x" * 401), 1009),
    ],
)
def test_what_is_wrong_or_too_large_ends_the_stream_after_what_came_before(data: bytes, code: int) -> None:
    incoming = every_way(client(Opcode.TEXT, b"before") + data + client(Opcode.TEXT, b"after"))
    assert incoming.messages == [b"before"]
    assert incoming.end is not None
    assert (incoming.end.code, incoming.end.closed) == (code, False)


def test_a_message_of_the_limit_is_read_and_no_more_is_kept_than_that() -> None:
    assert every_way(client(Opcode.TEXT, b"x" * 1000)) == Incoming([b"x" * 1000])
    reader = FrameReader(1000, apply_mask)
    reader.feed(client(Opcode.TEXT, b"", fin=False))
    for _ in range(1000):
        reader.feed(client(Opcode.CONTINUATION, b"x", fin=False))
        assert reader.held <= 1010
    assert reader.feed(client(Opcode.CONTINUATION, b"x", fin=False)).end is not None
    assert reader.held == 0


def test_a_large_message_in_small_pieces_is_read_in_linear_time() -> None:
    data = client(Opcode.TEXT, b"x" * (32 << 20))
    reader = FrameReader(64 << 20, apply_mask)
    for at in range(0, len(data), 1000):
        incoming = reader.feed(data[at : at + 1000])
    assert len(incoming.messages[0]) == 32 << 20


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_what_is_sent_is_as_others_write_it(size: int) -> None:
    assert frame(Opcode.TEXT, b"x" * size) == Frame(TheirOpcode.TEXT, b"x" * size).serialize(mask=False)
    assert close_frame(1001, "stopping") == Frame(TheirOpcode.CLOSE, Close(1001, "stopping").serialize()).serialize(
        mask=False
    )
    assert len(close_frame(1000, "é" * 100)) == 2 + 2 + 122
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==").decode() == their_accept_key("dGhlIHNhbXBsZSBub25jZQ==")


MESSAGES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=200), st.integers(0, 3)))


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=10))
def test_fuzz_messages_in_fragments_cut_anywhere_are_read(
    messages: Sequence[tuple[int, bytes, int]], places: list[int]
) -> None:
    data = b""
    for opcode, payload, cuts in messages:
        step = len(payload) // (cuts + 1) + 1
        parts = [payload[at : at + step] for at in range(0, len(payload), step)]
        for number, part in enumerate(parts):
            data += client(opcode if not number else Opcode.CONTINUATION, part, fin=number == len(parts) - 1)
    ends = [*sorted(min(place, len(data)) for place in places), len(data)]
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert read(pieces) == Incoming([payload for _, payload, _ in messages])


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_fuzz_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    assert read(pieces) == read([b"".join(pieces)])
