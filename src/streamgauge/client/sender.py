"""The background thread of a writer: it connects, sends, takes acknowledgements, and starts again when that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.client.backoff import Backoff
from streamgauge.client.buffer import WINDOW_BYTES, Buffer, Run
from streamgauge.client.link import Conflict, Connect, Link, LinkFailed, Refused
from streamgauge.client.waker import Waker

_SEND_EVENTS = 512
"""That are prepared at once, so that acknowledgements are read, and callers get the interpreter's lock, in between."""


class Sender:
    """`run` is the thread. It ends when the buffer is closed, or sealed and empty."""

    def __init__(
        self,
        buffer: Buffer,
        connect: Connect,
        waker: Waker,
        backoff: Backoff,
        linger: float,
        silence: float,
        report: Callable[[str, str], None],
        place: str,
    ) -> None:
        self._buffer = buffer
        self._connect = connect
        self._waker = waker
        self._backoff = backoff
        self._linger = linger
        self._silence = silence  # seconds without an acknowledgement after which a link is given up
        self._report = report
        self._place = place  # the server, for messages
        self._window = buffer.window
        self._link: Link | None = None
        self._hurried = False  # since the buffer was sealed

    def run(self) -> None:
        self._waker.open()
        try:
            while not self._buffer.closed:
                run = self._buffer.run()
                if run is not None:
                    self._attempt(run)
                elif self._buffer.sealed:
                    return
                else:
                    self._waker.wait(None)
                    self._waker.wait(self._linger)
        finally:
            self._waker.close()

    def abandon(self) -> None:
        """In a child after a fork, where the thread is not: let go of the parent's sockets."""
        self._waker.close()
        if self._link is not None:
            self._link.close()

    def _attempt(self, run: Run) -> None:
        """One connection, for as long as it lasts. Nothing that goes wrong ends the thread."""
        try:
            self._link = link = self._connect(run.stream, run.first)
            try:
                self._converse(link)
            finally:
                self._link = None
                link.close()
        except Conflict as error:
            self._report("conflict", f"{error}: what is left goes on as a stream of its own")
            self._buffer.rename()
            self._pause(self._backoff.pause())
        except Exception as error:
            why = str(error) or type(error).__name__
            self._report("connection", f"cannot deliver events to {self._place}, tries again: {why}")
            self._pause(self._backoff.pause(getattr(error, "retry_after", 0.0)))

    def _converse(self, link: Link) -> None:
        """Until all is acknowledged and nothing, or another stream, is to follow."""
        talk = _Talk()
        try:
            while not self._buffer.closed:
                batch = self._buffer.unsent(talk.sent, min(_SEND_EVENTS, self._window - talk.sent), WINDOW_BYTES)
                if batch:
                    talk.heard = talk.heard if talk.sent else time.monotonic()
                    talk.sent += len(batch)
                    link.send(batch)
                elif not talk.sent and (self._buffer.sealed or self._buffer.is_finished()):
                    link.finish()
                    return
                self._listen(link, talk, bool(batch))
        except Refused as error:
            if talk.sent > 1:
                self._window = talk.sent // 2  # until the one that is refused is alone
                return
            self._buffer.replace_first(str(error))
            raise
        except LinkFailed:
            if talk.sent and not talk.acknowledged:
                self._window = max(1, talk.sent // 2)  # so much may be too much for this network or server
            raise

    def _listen(self, link: Link, talk: _Talk, busy: bool) -> None:
        """Take acknowledgements. Unless it is busy sending, wait for them or for more to send, and then for a batch."""
        if busy and talk.sent < self._window:
            self._take(link.wait(0), talk)
            return
        left = max(talk.heard + self._silence - time.monotonic(), 0) if talk.sent else None
        self._take(link.wait(left), talk)
        if talk.sent and time.monotonic() >= talk.heard + self._silence:
            raise LinkFailed(f"the server has acknowledged nothing for {self._silence:g} s")
        if not self._buffer.sealed:
            self._take(link.wait(self._linger), talk)

    def _take(self, count: int, talk: _Talk) -> None:
        count = min(count - talk.acknowledged, talk.sent)
        if count > 0:
            self._buffer.acknowledge(count)
            talk.acknowledged += count
            talk.sent -= count
            talk.heard = time.monotonic()
            self._window = min(self._window * 2, self._buffer.window)
            self._backoff.reset()

    def _pause(self, seconds: float) -> None:
        """A close ends the first pause that it meets, and pauses begin small again."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._buffer.closed:
            if self._buffer.sealed and not self._hurried:
                self._hurried = True
                self._backoff.reset()
                return
            self._waker.wait(left)


@dataclass(slots=True)
class _Talk:
    """Events on one link."""

    sent: int = 0  # and not acknowledged
    acknowledged: int = 0
    heard: float = 0.0  # monotonic seconds: the last acknowledgement, or since when there is one to wait for
