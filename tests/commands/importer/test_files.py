"""Files as they come: compressed, cut off, in any format, cut into blocks that a later run can begin at."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import BinaryIO, cast

import click
import pyarrow as pa
import pytest

from streamgauge.cli import cli
from streamgauge.commands.importer import blocks
from streamgauge.commands.importer.blocks import Block, folder_blocks, line_blocks, request_blocks
from streamgauge.commands.importer.formats import FORMATS, format_of, reader_of
from streamgauge.commands.importer.stream import Stream, open_stream
from streamgauge.errors import BadInput, NotFound
from streamgauge.testing import requests
from streamgauge.testing.requests import Series
from streamgauge.wire.write_bodies import WriteBodies

LINES = b"".join(b'a{n="%d"} %d %d\n' % (number % 7, number, number) for number in range(5000))
REQUEST = requests.snappy(requests.v1([Series({"__name__": "a"}, [(1, 1.0)])]))
FRAMED = bytes([len(REQUEST)]) + REQUEST


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


def stream_of(data: bytes) -> Stream:
    return Stream(cast("BinaryIO", io.BufferedReader(io.BytesIO(data))), "it", len(data))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(blocks, "REQUESTS_BYTES", 3 * len(FRAMED))


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstd, lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])]
)
def test_a_file_is_read_from_any_block_on(tmp_path: Path, pack: object) -> None:
    file = tmp_path / "file"
    file.write_bytes(pack(LINES))  # type: ignore[operator]
    with open_stream(str(file)) as stream:
        all_blocks = list(line_blocks(stream, 0))
        assert stream.position == file.stat().st_size
    assert b"".join(block.data for block in all_blocks) == LINES
    assert len(all_blocks) > 50
    for block in all_blocks[::20]:
        with open_stream(str(file)) as stream:
            stream.peek(10)  # as finding out the format does
            assert b"".join(rest.data for rest in line_blocks(stream, block.end)) == LINES[block.end :]


def test_the_last_line_is_ended_and_long_ones_are_whole() -> None:
    text = b"a\n" + b"b" * 5000 + b"\nc"
    assert [block.data for block in line_blocks(stream_of(text), 0)] == [b"a\n", b"b" * 5000 + b"\n", b"c\n"]
    assert list(line_blocks(stream_of(b""), 0)) == []


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_LINE_BYTES", 3000)
    with pytest.raises(BadInput, match="a line has more than 3000 bytes"):
        list(line_blocks(stream_of(b"x" * 5000), 0))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_is_cut_off_is_read_up_to_there(pack: object) -> None:
    noise = b"".join(b"%d %d\n" % (number, hash((number, 7))) for number in range(20_000))
    packed = pack(noise)  # type: ignore[operator]
    read: list[Block] = []
    with pytest.raises(BadInput, match="it: cannot be read any further"):
        read += line_blocks(stream_of(packed[: len(packed) // 2]), 0)
    assert read
    assert noise.startswith(b"".join(block.data for block in read))


def test_requests_are_read_from_any_block_on() -> None:
    data = FRAMED * 10
    read = list(request_blocks(stream_of(data), 0))
    assert [len(block.data) // len(FRAMED) for block in read] == [3, 3, 3, 1]
    assert b"".join(block.data for block in request_blocks(stream_of(data), read[1].end)) == data[read[1].end :]


@pytest.mark.parametrize(("tail", "part"), [(FRAMED[:-1], "cut off"), (b"\x80", "cut off"), (b"\xff" * 9, "no length")])
def test_requests_before_a_damaged_one_are_read(tail: bytes, part: str) -> None:
    stream = stream_of(FRAMED * 4 + tail)
    read: list[Block] = []
    with pytest.raises(BadInput, match=part):
        read += request_blocks(stream, 0)
    assert b"".join(block.data for block in read) == FRAMED * 4


def test_a_folder_of_requests(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}").write_bytes(REQUEST)
    (tmp_path / ".hidden").write_bytes(b"x")
    read = list(folder_blocks(tmp_path, 0))
    assert b"".join(block.data for block in read) == FRAMED * 7
    assert [block.end for block in read] == [4, 7]
    assert WriteBodies().read(read[0].data, 1).count == 4
    assert [block.data for block in folder_blocks(tmp_path, 4)] == [FRAMED * 3]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        open_stream(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"# TYPE a gauge\na 1 1700000000.5\n", "openmetrics"),
        (b"a 1 1700000000\n", "openmetrics"),
        (b'a{x="1"} 1 1700000000 # {trace="1"} 5\n', "openmetrics"),
        (b"a 1\n# EOF\n", "openmetrics"),
        (b"", "openmetrics"),
        (b"a 1 1700000000123\n", "prometheus"),
        (b"# a comment 1\na 1\n", "prometheus"),
        (b"a 1 5\n", "openmetrics"),
        (b'{"metric":{"__name__":"a"},"values":[1],"timestamps":[1]}\n', "jsonl"),
        (b'{ "values": [1], "timestamps": [1], "metric": {} }\n', "jsonl"),
        (b'{"my.metric",x="1"} 1 1700000000\n', "openmetrics"),
        (b'{__name__="a", x="1"} 1 1700000000000\n', "dump"),
        (FRAMED, "remote-write"),
        (FRAMED * 20_000, "remote-write"),
    ],
)
def test_the_format_is_found_out(head: bytes, form: str) -> None:
    stream = stream_of(head)
    assert format_of(stream) == form
    assert stream.read(1 << 20)[:100] == head[:100], "nothing is lost by looking"
    assert reader_of(form, None).unit == ("request" if form == "remote-write" else "line")


def test_the_end_of_a_file_tells(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a 1 1700000000000\n" * 50_000 + b"# EOF\n")
    with open_stream(str(file)) as stream:
        assert format_of(stream) == "openmetrics"


def test_the_command_offers_every_format() -> None:
    (option,) = (param for param in cli.commands["import"].params if param.name == "format_")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == FORMATS
    assert all(f"  {form}  " in str(cli.commands["import"].epilog) for form in FORMATS[1:])


def test_what_is_no_format_of_ours() -> None:
    with pytest.raises(BadInput, match="none of the formats"):
        format_of(stream_of(b"PAR1\0\0\x15\0" * 10))


def test_events_in_json_lines_are_not_taken_for_text_of_metrics() -> None:
    with pytest.raises(BadInput, match="curl --data-binary"):
        format_of(stream_of(b'{"level":"info","message":"hello"}\n'))
    assert format_of(stream_of(b'{"my.metric",level="info"} 1 1700000000\n# EOF\n')) == "openmetrics"
