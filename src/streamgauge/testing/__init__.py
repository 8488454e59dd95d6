"""Real, small implementations of ports, for tests of what stands on them; some are opened in spawned processes."""

from streamgauge.testing.events import MemoryEvents
from streamgauge.testing.sink import MemorySink
from streamgauge.testing.source import MemorySnapshot, MemorySource
from streamgauge.testing.trouble import Trouble

__all__ = ["MemoryEvents", "MemorySink", "MemorySnapshot", "MemorySource", "Trouble"]
