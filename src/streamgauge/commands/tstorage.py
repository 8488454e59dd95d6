"""`streamgauge tstorage`: rows into a gRPC store, and points out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import click

from streamgauge.clock import SystemClock
from streamgauge.commands.grpc_peer import peer
from streamgauge.commands.times import moment
from streamgauge.errors import BadInput
from streamgauge.rpc.channel import Peer, RpcChannel
from streamgauge.wire import timeseries as wire

SECONDS = 10.0
"""For an answer of any of the commands."""
_DEFAULT_LABELS = ("Source=Command",)
_MS = 1_000_000


def run_insert(
    metric: str,
    values: Sequence[float],
    timestamps: Sequence[str],
    labels: Sequence[str],
    port: int,
    address: str | None,
    ca_file: str | None,
    token_file: str | None,
    stream: bool,
) -> None:
    """Raises BadInput for arguments that make no sense, and RpcFailed."""
    if len(values) != len(timestamps):
        raise BadInput(f"there are {len(values)} values and {len(timestamps)} timestamps; give one of each for a row")
    store = peer(address or f":{port}", ca_file, token_file)
    named = _labels(labels)
    rows = [
        wire.encode_datum(metric, named, value, _nanoseconds(time))
        for value, time in zip(values, timestamps, strict=True)
    ]
    asyncio.run(_insert(store, rows, stream))
    click.echo(f"{len(rows)} row{'s' * (len(rows) != 1)} stored", err=True)


def run_select(
    metric: str,
    start: str,
    end: str,
    labels: Sequence[str],
    port: int,
    address: str | None,
    ca_file: str | None,
    token_file: str | None,
) -> None:
    """Raises BadInput for arguments that make no sense, and RpcFailed."""
    wanted = wire.encode_filter(metric, _labels(labels), _nanoseconds(start), _nanoseconds(end))
    if not asyncio.run(_select(peer(address or f":{port}", ca_file, token_file), wanted)):
        click.echo("no data points found", err=True)


async def _insert(store: Peer, rows: Sequence[bytes], stream: bool) -> None:
    async def each() -> AsyncIterator[bytes]:
        for row in rows:
            yield row

    channel = RpcChannel(store)
    try:
        if stream:
            await channel.send(wire.INSERT_ROWS, each(), SECONDS)
        else:
            await channel.call(wire.INSERT_ROW, rows[0], SECONDS)
    finally:
        await channel.close()


async def _select(store: Peer, wanted: bytes) -> int:
    """How many points there were."""
    count = 0
    channel = RpcChannel(store)
    try:
        async for message in channel.read(wire.SELECT, wanted, SECONDS):
            point = wire.decode_point(message)
            click.echo(f"{_shown(point.time)} {point.value!r}")
            count += 1
    finally:
        await channel.close()
    return count


def _labels(texts: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts or _DEFAULT_LABELS:
        name, sign, value = text.partition("=")
        if not sign or not name or name in labels:
            raise BadInput(f'"{text}" is no label, or the second of its name; write NAME=VALUE')
        labels[name] = value
    return labels


def _nanoseconds(text: str) -> int:
    return moment(text, SystemClock().now_ms()) * _MS


def _shown(time: int) -> str:
    """ns as seconds, with as many decimals as it takes."""
    seconds, nanos = divmod(abs(time), wire.SECOND)
    decimals = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{'-' * (time < 0)}{seconds}{decimals}"
