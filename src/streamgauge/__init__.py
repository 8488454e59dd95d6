"""streamgauge: one server that every kind of telemetry flows into."""

__version__ = "0.1.0"
