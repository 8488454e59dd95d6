import asyncio

import pytest

from streamgauge.ingest.turns import Turns


async def passes_of(steps: list[int]) -> list[int]:
    """For each step that `steps` senders (with so many steps each) take, the number of the loop's pass."""
    turns = Turns()
    passes = 0
    taken: list[int] = []

    def tick() -> None:
        nonlocal passes
        passes += 1
        loop.call_soon(tick)

    async def sender(count: int) -> None:
        for _ in range(count):
            await turns.take(lambda: taken.append(passes))

    loop = asyncio.get_running_loop()
    loop.call_soon(tick)
    await asyncio.gather(*(sender(count) for count in steps))
    return taken


def test_a_pass_of_the_loop_has_one_turn_whatever_wants_one() -> None:
    taken = asyncio.run(passes_of([3] * 20))
    assert len(taken) == 60
    assert len(set(taken)) == 60


def test_turns_go_round() -> None:
    order: list[str] = []

    async def sender(turns: Turns, name: str) -> None:
        for _ in range(3):
            await turns.take(lambda: order.append(name))

    async def run() -> None:
        turns = Turns()
        await asyncio.gather(sender(turns, "a"), sender(turns, "b"))

    asyncio.run(run())
    assert order == ["a", "b"] * 3


def test_a_step_gives_what_it_returns_and_raises_and_the_turn_goes_on() -> None:
    async def run() -> None:
        turns = Turns()
        with pytest.raises(ZeroDivisionError):
            await turns.take(lambda: 1 // 0)
        assert await turns.take(lambda: 7) == 7

    asyncio.run(run())


def test_whoever_is_cancelled_while_waiting_takes_no_turn() -> None:
    async def run() -> list[str]:
        turns = Turns()
        taken: list[str] = []
        first = asyncio.create_task(turns.take(lambda: taken.append("first")))
        second = asyncio.create_task(turns.take(lambda: taken.append("second")))
        third = asyncio.create_task(turns.take(lambda: taken.append("third")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second, third])
        return taken

    assert asyncio.run(run()) == ["first", "third"]
