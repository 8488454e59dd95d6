"""What every test may use."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from streamgauge.testing import forked
from streamgauge.testing.programs import find_program

REQUIRE_PEERS = "STREAMGAUGE_REQUIRE_PEERS"

# Tests start hundreds of processes: where bytecode may not be written, each of them compiles everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile(
    "default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)  # `make thorough` tries ten times as many, `make fuzz` thousands of times
settings.register_profile("thorough", settings.get_profile("default"), max_examples=400)
settings.register_profile("long", settings.get_profile("default"), max_examples=100_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

gc.disable()  # until everything is collected: what modules and tests are made of stays


def pytest_collection_finish() -> None:
    """Thousands of tests and modules are there to the end: no collection of garbage is to go through them again."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # extension modules complain of what is left over


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked peer("prometheus") needs that program: without it, it is skipped by name, or fails in CI."""
    for marker in item.iter_markers("peer"):
        for program in marker.args:
            if find_program(program) is None:
                if os.environ.get(REQUIRE_PEERS):
                    pytest.fail(f"{program} is not installed, and {REQUIRE_PEERS} asks for it")
                pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded scrapes and PromQL scripts beside the repository, or beside a folder that it is in."""
    for folder in Path(__file__).resolve().parents[2:]:
        data = folder / "shared" / "data"
        if data.is_dir():
            return data
    pytest.skip("no recorded data beside the repository")


@pytest.fixture(scope="module")
def forking_workers() -> Iterator[None]:
    """For modules that start many workers, and have others that look at how they start."""
    with forked.forking_workers():
        yield


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Limits the size of the files, and so of the shared memory, that can be created."""
    resource = pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("shared memory counts as files on Linux alone")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are named by their place: some are random, and each process of a run must find the same names."""
    return argname if isinstance(val, bytes) else None
