"""Ready-made collectors of a relay: what psutil says of this host."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import psutil


def cpu() -> dict[str, float]:
    """Per cent of all cores since the last time."""
    times = psutil.cpu_times_percent(interval=None)
    found = {f"cpu_{name}": float(getattr(times, name)) for name in times._fields if not name.startswith("guest")}
    return {"cpu_used": 100.0 - found["cpu_idle"], **found}


def memory() -> dict[str, float]:
    """Bytes, but for the two of per cent."""
    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "memory_total": float(ram.total),
        "memory_available": float(ram.available),
        "memory_used": float(ram.used),
        "memory_used_percent": float(ram.percent),
        "swap_used": float(swap.used),
        "swap_used_percent": float(swap.percent),
    }


def load() -> dict[str, float]:
    return dict(zip(("load1", "load5", "load15"), psutil.getloadavg(), strict=True))


def disk() -> dict[str, float]:
    """Per cent of each file system that is used, and bytes read and written by each disk since the start."""
    found: dict[str, float] = {}
    for part in psutil.disk_partitions():
        try:
            found[f"disk_used_percent_{_word(part.mountpoint) or 'root'}"] = psutil.disk_usage(part.mountpoint).percent
        except OSError:  # one that is not there, or that we may not look at
            continue
    for name, counters in (psutil.disk_io_counters(perdisk=True) or {}).items():
        found[f"disk_read_bytes_{_word(name)}"] = float(counters.read_bytes)
        found[f"disk_written_bytes_{_word(name)}"] = float(counters.write_bytes)
    return found


def network() -> dict[str, float]:
    """Bytes and errors of each interface since the start."""
    found: dict[str, float] = {}
    for name, counters in psutil.net_io_counters(pernic=True).items():
        found[f"network_received_bytes_{_word(name)}"] = float(counters.bytes_recv)
        found[f"network_sent_bytes_{_word(name)}"] = float(counters.bytes_sent)
        found[f"network_errors_{_word(name)}"] = float(counters.errin + counters.errout)
    return found


COLLECTORS: Mapping[str, Callable[[], Mapping[str, float]]] = {
    "cpu": cpu,
    "memory": memory,
    "load": load,
    "disk": disk,
    "network": network,
}


def _word(name: str) -> str:
    """A name as part of a metric name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
