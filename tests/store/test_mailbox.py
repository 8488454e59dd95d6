"""Calls from another thread: all of them, in order, whatever one of them does."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from streamgauge.store import mailbox
from streamgauge.store.mailbox import Mailbox


@pytest.mark.parametrize("platform", [sys.platform, "elsewhere"])
def test_calls_are_made_in_order_on_the_loop(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox.sys, "platform", platform)

    async def scene() -> None:
        loop, loop_thread = asyncio.get_running_loop(), threading.get_ident()
        failures: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        box, made, all_made = Mailbox(loop), [], asyncio.Event()

        def call(number: int) -> None:
            assert threading.get_ident() == loop_thread
            made.append(number)
            if number == 50:
                raise ZeroDivisionError
            if number == 99:
                all_made.set()

        def post(first: int) -> None:
            for number in range(first, first + 100):
                box.post(call, number)

        thread = threading.Thread(target=post, args=(0,))
        thread.start()
        await asyncio.wait_for(all_made.wait(), 30)
        assert made == list(range(100))
        assert [type(failure) for failure in failures] == [ZeroDivisionError]
        await asyncio.to_thread(thread.join)
        last = threading.Thread(target=post, args=(100,))
        last.start()
        last.join()  # the loop has no turn, so that close finds what is left
        box.close()
        assert made == list(range(200))
        assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) <= descriptors + 1

    asyncio.run(scene())


def test_what_is_posted_to_a_loop_that_is_gone_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox.sys, "platform", "elsewhere")
    loop = asyncio.new_event_loop()
    box = Mailbox(loop)
    loop.close()
    box.post(print, "never")
