"""Metrics of a host of any system that psutil knows, by node_exporter's names."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping

import psutil

from streamgauge.ingest.mounts import MountProbe, Usage, filesystem_families
from streamgauge.ingest.sampling import Collect, labelled, single
from streamgauge.stats import Family

_DISK_FIELDS = (  # attribute of psutil, name, factor
    ("read_count", "reads_completed_total", 1.0),
    ("write_count", "writes_completed_total", 1.0),
    ("read_bytes", "read_bytes_total", 1.0),
    ("write_bytes", "written_bytes_total", 1.0),
    ("read_time", "read_time_seconds_total", 0.001),
    ("write_time", "write_time_seconds_total", 0.001),
)
_NETWORK_FIELDS = (
    ("bytes_recv", "receive_bytes"),
    ("packets_recv", "receive_packets"),
    ("errin", "receive_errs"),
    ("dropin", "receive_drop"),
    ("bytes_sent", "transmit_bytes"),
    ("packets_sent", "transmit_packets"),
    ("errout", "transmit_errs"),
    ("dropout", "transmit_drop"),
)
_MEMORY_FIELDS = (
    ("total", "MemTotal"),
    ("available", "MemAvailable"),
    ("free", "MemFree"),
    ("active", "Active"),
    ("inactive", "Inactive"),
    ("buffers", "Buffers"),
    ("cached", "Cached"),
    ("wired", "wired"),
)


class PortableHost:
    """Readers for systems without a module of their own."""

    def __init__(self) -> None:
        self._mounts = MountProbe(_measure)

    def collectors(self) -> Mapping[str, Collect]:
        return {
            "boottime": boot_time,
            "cpu": cpu,
            "diskstats": disks,
            "filesystem": self.filesystem,
            "loadavg": load,
            "meminfo": memory,
            "netclass": interfaces,
            "netdev": network,
            "time": clock,
            "uname": uname,
        }

    def filesystem(self) -> Iterator[Family]:
        mounts = {part.mountpoint: part for part in psutil.disk_partitions(all=False)}
        usages = self._mounts.measure(mounts)
        return filesystem_families(
            (
                {"device": part.device, "fstype": part.fstype, "mountpoint": mountpoint},
                "ro" in part.opts.split(","),
                usages[mountpoint],
            )
            for mountpoint, part in mounts.items()
        )


def cpu() -> Iterator[Family]:
    samples = [
        ({"cpu": str(number), "mode": mode}, seconds)
        for number, times in enumerate(psutil.cpu_times(percpu=True))
        for mode, seconds in times._asdict().items()
        if not mode.startswith("guest")
    ]
    yield labelled("node_cpu_seconds_total", "counter", "CPU time spent in each mode.", samples)
    counts = psutil.cpu_stats()
    yield single("node_context_switches_total", "counter", "Context switches.", counts.ctx_switches)
    yield single("node_intr_total", "counter", "Interrupts serviced.", counts.interrupts)


def memory() -> Iterator[Family]:
    found = psutil.virtual_memory()
    for attribute, name in _MEMORY_FIELDS:
        if hasattr(found, attribute):
            yield single(f"node_memory_{name}_bytes", "gauge", f"Memory: {attribute}.", getattr(found, attribute))
    swap = psutil.swap_memory()
    yield single("node_memory_SwapTotal_bytes", "gauge", "Swap space.", swap.total)
    yield single("node_memory_SwapFree_bytes", "gauge", "Swap space that is free.", swap.free)


def load() -> Iterator[Family]:
    for minutes, value in zip((1, 5, 15), psutil.getloadavg(), strict=True):
        yield single(f"node_load{minutes}", "gauge", f"Load average over {minutes} min.", value)


def disks() -> Iterator[Family]:
    found = psutil.disk_io_counters(perdisk=True, nowrap=False)
    for attribute, name, factor in _DISK_FIELDS:
        samples = [
            ({"device": device}, getattr(counts, attribute) * factor)
            for device, counts in found.items()
            if hasattr(counts, attribute)
        ]
        yield labelled(f"node_disk_{name}", "counter", f"{attribute} of the disk.", samples)


def network() -> Iterator[Family]:
    found = psutil.net_io_counters(pernic=True, nowrap=False)
    for attribute, name in _NETWORK_FIELDS:
        samples = [({"device": device}, float(getattr(counts, attribute))) for device, counts in found.items()]
        yield labelled(f"node_network_{name}_total", "counter", f"{name} of the interface.", samples)


def interfaces() -> Iterator[Family]:
    found = psutil.net_if_stats()
    up = [({"device": device}, float(state.isup)) for device, state in found.items()]
    yield labelled("node_network_up", "gauge", "Whether the interface is up.", up)
    mtu = [({"device": device}, float(state.mtu)) for device, state in found.items()]
    yield labelled("node_network_mtu_bytes", "gauge", "Largest packet.", mtu)


def boot_time() -> Iterator[Family]:
    yield single("node_boot_time_seconds", "gauge", "When the host was started, Unix time.", psutil.boot_time())


def clock() -> Iterator[Family]:
    """The host's clock and time zone."""
    now = time.time()
    zone = time.localtime(now)
    yield single("node_time_seconds", "gauge", "The host's clock, Unix time.", now)
    offset = [({"time_zone": zone.tm_zone}, float(zone.tm_gmtoff))]
    yield labelled("node_time_zone_offset_seconds", "gauge", "Offset of the time zone from UTC.", offset)


def uname() -> Iterator[Family]:
    found = platform.uname()
    labels = {
        "sysname": found.system,
        "release": found.release,
        "version": found.version,
        "nodename": found.node,
        "machine": found.machine,
        "domainname": "(none)",
    }
    yield labelled("node_uname_info", "gauge", "A constant 1; the labels are those of uname.", [(labels, 1.0)])


def _measure(mountpoint: str) -> Usage:
    found = psutil.disk_usage(mountpoint)
    return Usage(found.total, found.total - found.used, found.free)
