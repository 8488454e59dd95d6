"""A store of host samples inside a Python program, without a server: see docs/embedding.md."""

from streamgauge.embed.collector import Collector
from streamgauge.embed.store import Counts, Store
from streamgauge.model.host_history import RANGES, Range
from streamgauge.model.host_history import HostSample as Sample

__all__ = ["RANGES", "Collector", "Counts", "Range", "Sample", "Store"]
