"""The receivers of pushes on a sink in memory, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.stats import Stats
from streamgauge.testing.push_receiver import EVERYTHING, Federation, receiver_of
from streamgauge.testing.sink import MemorySink


@pytest.fixture
def federate(clock: ManualClock) -> Callable[..., Federation]:
    def make(settings: PushSettings = EVERYTHING) -> Federation:
        sink, stats = MemorySink(), Stats()
        return Federation(clock, sink, stats, receiver_of(sink, stats, clock, settings))

    return make


@pytest.fixture
def federation(federate: Callable[..., Federation]) -> Federation:
    return federate()
