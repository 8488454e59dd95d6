"""Connections to gRPC servers: calls in which messages are bytes, and errors that say what went wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Before the library is imported: it would write what peers do wrong to standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from streamgauge.errors import FetchFailed
from streamgauge.http.options import HttpOptions, Secret, Tls

MAX_MESSAGE_BYTES = 1 << 20
"""Of one message that is received. A datum has some hundred bytes."""
MAX_METADATA_BYTES = 64 << 10

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # else one that failed would be found again, with its wait to reconnect
)
_SHOWN = 300  # characters of what a server says


class RpcFailed(FetchFailed):
    """`code` is the word for the status, such as UNAVAILABLE."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Peer:
    """A server, HOST:PORT. secure: by TLS, as `options` say, which also say who calls."""

    address: str
    secure: bool = False
    options: HttpOptions = field(default_factory=HttpOptions)


class RpcChannel:
    """A connection, made with the first call. Used on one event loop; close it.

    Raises ConfigError for files that cannot be read, as does each call, and these RpcFailed.
    """

    def __init__(self, peer: Peer) -> None:
        self._options = peer.options
        target = f"dns:///{peer.address}"  # an address might else begin with the name of another way, such as unix:
        if not peer.secure:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
            return
        tls = peer.options.tls
        named = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
        self._channel = grpc.aio.secure_channel(target, credentials(tls), options=(*_OPTIONS, *named))

    async def call(self, method: str, request: bytes, seconds: float) -> bytes:
        """One message, one answer."""
        stub: Any = self._channel.unary_unary(method)
        with _translating(seconds):
            answer: bytes = await stub(request, timeout=seconds, metadata=self._metadata())
        return answer

    async def send(self, method: str, messages: AsyncIterable[bytes], seconds: float) -> bytes:
        """Many messages, one answer. What `messages` raises goes through, and ends the call."""
        stub: Any = self._channel.stream_unary(method)
        call = stub(timeout=seconds, metadata=self._metadata())
        try:
            async for message in messages:
                if not await _done(call.write(message)):
                    break
            else:
                await _done(call.done_writing())
            with _translating(seconds):
                answer: bytes = await call
        finally:
            call.cancel()
        return answer

    async def read(self, method: str, request: bytes, seconds: float) -> AsyncGenerator[bytes, None]:
        """One message, a stream of answers. Closing the generator ends the call."""
        stub: Any = self._channel.unary_stream(method)
        call = stub(request, timeout=seconds, metadata=self._metadata())
        try:
            with _translating(seconds):
                while (message := await call.read()) is not grpc.aio.EOF:  # a fifth less than to iterate
                    yield message
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()

    def _metadata(self) -> Any:
        authorization = self._options.authorization()  # a file may have another by now
        return (("authorization", authorization),) if authorization else ()


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Raises ConfigError for a file that cannot be read. The library verifies the server always."""
    return grpc.ssl_channel_credentials(_content(tls.ca), _content(tls.key), _content(tls.cert))


async def _done(operation: Awaitable[None]) -> bool:
    """Whether a part of a call could be sent. If not, the call has ended, and tells how."""
    try:
        await operation
    except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
        return False
    return True


@contextmanager
def _translating(seconds: float) -> Iterator[None]:
    """Raise RpcFailed for what the library raises. seconds: that the call had."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        code, details = error.code(), _shown(error.details() or "")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise RpcFailed(f"no whole answer within {seconds:g} s", code.name) from None
        raise RpcFailed(f"{code.name}: {details}" if details else code.name, code.name) from None
    except grpc.aio.BaseError as error:
        raise RpcFailed(f"INTERNAL: {_shown(str(error))}", "INTERNAL") from None


def _shown(text: str) -> str:
    """What somebody else says, as part of a line."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text[: 4 * _SHOWN].split())[:_SHOWN])


def _content(secret: Secret) -> bytes | None:
    return secret.read().encode() if secret else None
