"""Real, small implementations of ports, for tests of what stands on them; some are opened in spawned processes."""

from streamgauge.testing.sink import MemorySink
from streamgauge.testing.source import MemorySource
from streamgauge.testing.trouble import Trouble

__all__ = ["MemorySink", "MemorySource", "Trouble"]
