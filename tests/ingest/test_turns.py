import asyncio
from collections import Counter

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.turns import Turns


async def passes_of(steps: list[int], allowed: float, each: float = 0.0) -> list[int]:
    """For each step that `steps` senders (with so many steps each) take, the number of the loop's pass.

    allowed: seconds of steps in a pass. each: what a step takes."""
    clock = ManualClock()
    turns = Turns(clock, allowed)
    passes = 0
    taken: list[int] = []

    def tick() -> None:
        nonlocal passes
        passes += 1
        loop.call_soon(tick)

    def step() -> None:
        taken.append(passes)
        clock.spend(each)

    async def sender(count: int) -> None:
        for _ in range(count):
            await turns.take(step)

    loop = asyncio.get_running_loop()
    loop.call_soon(tick)
    await asyncio.gather(*(sender(count) for count in steps))
    return taken


def test_a_pass_of_the_loop_has_one_turn_whatever_wants_one() -> None:
    taken = asyncio.run(passes_of([3] * 20, allowed=0.0))
    assert len(taken) == 60
    assert len(set(taken)) == 60


@pytest.mark.parametrize("senders", [[60], [3] * 20, [20, 1, 39]])
def test_a_pass_has_turns_for_two_milliseconds(senders: list[int]) -> None:
    taken = asyncio.run(passes_of(senders, allowed=0.002, each=0.0005))
    assert len(taken) == 60
    assert max(Counter(taken).values()) == 4


def test_turns_that_take_no_time_need_no_pass() -> None:
    assert set(asyncio.run(passes_of([3] * 20, allowed=0.002))) == {1}


def test_nobody_waits_for_more_than_a_turn_of_everybody_else() -> None:
    async def run() -> list[str]:
        clock = ManualClock()
        turns = Turns(clock, 0.002)
        order: list[str] = []

        async def sender(name: str) -> None:
            for _ in range(9):
                await turns.take(lambda: (order.append(name), clock.spend(0.003))[0])

        await asyncio.gather(*map(sender, "abc"))
        return order

    assert asyncio.run(run()) == ["a", *(["a", "b", "c"] * 8), "b", "c"]


def test_turns_go_round() -> None:
    order: list[str] = []

    async def sender(turns: Turns, name: str) -> None:
        for _ in range(3):
            await turns.take(lambda: order.append(name))

    async def run() -> None:
        turns = Turns(seconds=0.0)
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


def test_what_runs_at_once_counts_like_what_waits() -> None:
    async def run() -> None:
        clock = ManualClock()
        turns = Turns(clock, 0.002)
        assert turns.free()
        assert turns.at_once(lambda: 7) == 7
        turns.at_once(lambda: clock.spend(0.003))
        assert not turns.free()
        waiting = asyncio.create_task(turns.take(lambda: 8))
        assert not turns.free()
        assert await waiting == 8
        assert turns.free()
        turns.at_once(lambda: clock.spend(0.003))
        await asyncio.sleep(0)
        assert turns.free(), "this is another pass"

    asyncio.run(run())


def test_whoever_is_cancelled_while_waiting_takes_no_turn() -> None:
    async def run() -> list[str]:
        turns = Turns(seconds=0.0)
        taken: list[str] = []
        first = asyncio.create_task(turns.take(lambda: taken.append("first")))
        second = asyncio.create_task(turns.take(lambda: taken.append("second")))
        third = asyncio.create_task(turns.take(lambda: taken.append("third")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second, third])
        return taken

    assert asyncio.run(run()) == ["first", "third"]
