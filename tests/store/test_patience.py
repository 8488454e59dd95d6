"""A disk that does not give back what is on it: blocks are asked for again before they are set aside."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Corrupt, Unreadable
from streamgauge.store import names
from streamgauge.store.failpoints import armed
from streamgauge.store.patience import PAUSES, SECONDS_IN_ALL, Patience
from streamgauge.store.recovery import recover
from streamgauge.testing.lives import KEYS, NOON, batch_of, opened


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one block."""

    async def fill() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            await store.append(batch_of(store, [(KEYS[0], NOON, 1)]))
            store.head.seal()
            assert await maintenance.flush(1 << 20)

    asyncio.run(fill())
    return tmp_path / "data"


def start(data: Path) -> tuple[int, list[str], list[float]]:
    """Blocks that are served, what is damaged, and the pauses that were made."""
    pauses: list[float] = []
    recovered = recover(data, patience=Patience(pauses.append))
    recovered.catalog.close()
    return len(recovered.state.blocks), [damage.what for damage in recovered.damage], pauses


@pytest.mark.parametrize("failures", [1, 2, 3])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_block_that_the_disk_gives_back_at_last_is_served(data: Path, first: int, failures: int) -> None:
    """Its checksums, its series and its labels are read one after the other."""
    with armed("fs.read", "eio", first, first + failures - 1):
        served, damage, pauses = start(data)
    assert (served, damage) == (1, [])
    assert 1 <= len(pauses) <= failures
    assert not names.set_aside_dir(data).exists()


def test_without_a_catalog_too(data: Path) -> None:
    names.catalog_file(data).unlink()
    with armed("fs.read", "eio", 1, 3):
        served, damage, pauses = start(data)
    assert (served, damage, pauses) == (1, [], list(PAUSES))


def test_a_block_that_the_disk_never_gives_back_is_set_aside(data: Path) -> None:
    with armed("fs.read", "eio", 1, 1 + len(PAUSES)):
        served, damage, pauses = start(data)
    assert (served, pauses) == (0, list(PAUSES))
    assert len(damage) == 1
    assert "Input/output error" in damage[0]
    assert "1 samples are not served" in damage[0]
    assert len(list(names.set_aside_dir(data).glob("*.txt"))) == 1


def test_damage_is_not_waited_for(data: Path) -> None:
    (block,) = names.blocks_dir(data).iterdir()
    names.series_file(block).write_bytes(b"no parquet")
    served, damage, pauses = start(data)
    assert (served, len(damage), pauses) == (0, 1, [])


def test_only_a_disk_that_fails_is_asked_again() -> None:
    asked: list[str] = []

    def read() -> None:
        asked.append("again")
        raise Corrupt("it is what it is") if len(asked) > 2 else Unreadable("not now")

    pauses: list[float] = []
    with pytest.raises(Corrupt, match="it is what it is"):
        Patience(pauses.append).read(read)
    assert (len(asked), pauses) == (3, list(PAUSES[:2]))


def test_patience_ends() -> None:
    def read() -> None:
        raise Unreadable("not now")

    pauses: list[float] = []
    patience = Patience(pauses.append)
    for _ in range(100):
        with pytest.raises(Unreadable):
            patience.read(read)
    assert SECONDS_IN_ALL - max(PAUSES) < sum(pauses) <= SECONDS_IN_ALL
