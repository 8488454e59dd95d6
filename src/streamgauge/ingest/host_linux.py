"""Metrics of a Linux host from /proc and /sys, by node_exporter's names, so that its dashboards work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from streamgauge.ingest.host_portable import clock
from streamgauge.ingest.mounts import MountProbe, Usage, filesystem_families
from streamgauge.ingest.sampling import Collect, labelled, single
from streamgauge.stats import Family

_CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_SECTOR_BYTES = 512  # of /proc/diskstats, whatever the device's own are

_DISK_FIELDS = (  # in the order of /proc/diskstats: name, factor
    ("reads_completed_total", 1.0),
    ("reads_merged_total", 1.0),
    ("read_bytes_total", _SECTOR_BYTES),
    ("read_time_seconds_total", 0.001),
    ("writes_completed_total", 1.0),
    ("writes_merged_total", 1.0),
    ("written_bytes_total", _SECTOR_BYTES),
    ("write_time_seconds_total", 0.001),
    ("io_now", 1.0),
    ("io_time_seconds_total", 0.001),
    ("io_time_weighted_seconds_total", 0.001),
    ("discards_completed_total", 1.0),
    ("discards_merged_total", 1.0),
    ("discarded_sectors_total", 1.0),
    ("discard_time_seconds_total", 0.001),
    ("flush_requests_total", 1.0),
    ("flush_requests_time_seconds_total", 0.001),
)
_RECEIVE_FIELDS = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
_TRANSMIT_FIELDS = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")

_SKIPPED_DISKS = re.compile(r"(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+")
_SKIPPED_MOUNTS = re.compile(r"/(dev|proc|run|sys|mnt|media|var/lib/docker/.+|var/lib/containers/storage/.+)(/.*)?")
_SKIPPED_FILESYSTEMS = re.compile(
    r"autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay"
    r"|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs"
)
_VMSTAT = re.compile(r"oom_kill|pgpg.*|pswp.*|pg.*fault")
_NETSTAT = re.compile(
    r".*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors)"
)
_OS_LABELS = (
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
)


class LinuxHost:
    """Readers of one host. `root` is where its /proc, /sys and /etc are found."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._net = root / "sys/class/net"
        self._os_release = root / "etc/os-release"
        self._mounts = MountProbe(_measure)

    def collectors(self) -> Mapping[str, Collect]:
        return {
            "conntrack": self.conntrack,
            "diskstats": self.diskstats,
            "filefd": self.filefd,
            "filesystem": self.filesystem,
            "loadavg": self.loadavg,
            "meminfo": self.meminfo,
            "netclass": self.netclass,
            "netdev": self.netdev,
            "netstat": self.netstat,
            "os": self.os,
            "pressure": self.pressure,
            "sockstat": self.sockstat,
            "stat": self.stat,
            "time": clock,
            "uname": self.uname,
            "vmstat": self.vmstat,
        }

    def _read(self, path: str) -> str:
        return (self._proc / path).read_text(errors="replace")

    def _read_if_any(self, path: str) -> str:
        """A file that a kernel may lack, or refuse to read because what it counts is switched off."""
        try:
            return self._read(path)
        except OSError:
            return ""

    def stat(self) -> Iterator[Family]:
        """CPU time and the kernel's counters, from /proc/stat."""
        ticks = os.sysconf("SC_CLK_TCK")
        seconds: list[tuple[dict[str, str], float]] = []
        guests: list[tuple[dict[str, str], float]] = []
        first: dict[str, float] = {}
        for line in self._read("stat").splitlines():
            name, *numbers = line.split()
            if name.startswith("cpu") and name != "cpu":
                used = [int(number) / ticks for number in numbers]
                cpu = name.removeprefix("cpu")
                seconds += [({"cpu": cpu, "mode": mode}, value) for mode, value in zip(_CPU_MODES, used, strict=False)]
                guests += [
                    ({"cpu": cpu, "mode": mode}, value) for mode, value in zip(("user", "nice"), used[8:], strict=False)
                ]
            elif numbers:
                first[name] = float(numbers[0])
        yield labelled("node_cpu_seconds_total", "counter", "CPU time spent in each mode.", seconds)
        yield labelled("node_cpu_guest_seconds_total", "counter", "CPU time spent in guests, for each mode.", guests)
        for key, name, kind, text in (
            ("btime", "boot_time_seconds", "gauge", "When the host was started, Unix time."),
            ("ctxt", "context_switches_total", "counter", "Context switches."),
            ("intr", "intr_total", "counter", "Interrupts serviced."),
            ("processes", "forks_total", "counter", "Processes and threads created."),
            ("procs_running", "procs_running", "gauge", "Processes that run or are ready to."),
            ("procs_blocked", "procs_blocked", "gauge", "Processes that wait for input or output."),
        ):
            if key in first:
                yield single(f"node_{name}", kind, text, first[key])

    def meminfo(self) -> Iterator[Family]:
        for line in self._read("meminfo").splitlines():
            name, _, rest = line.partition(":")
            number, *unit = rest.split()
            field = name.replace("(", "_").replace(")", "")
            value, suffix = (float(number) * 1024, "_bytes") if unit else (float(number), "")
            yield single(f"node_memory_{field}{suffix}", "gauge", f"{name} of /proc/meminfo.", value)

    def loadavg(self) -> Iterator[Family]:
        for minutes, number in zip((1, 5, 15), self._read("loadavg").split(), strict=False):
            yield single(f"node_load{minutes}", "gauge", f"Load average over {minutes} min.", float(number))

    def filesystem(self) -> Iterator[Family]:
        mounts: dict[str, tuple[str, str, bool]] = {}
        # A service manager may show us a tree of our own, all read-only: the host's is that of its first process.
        table = self._read_if_any("1/mounts") or self._read("self/mounts")
        for line in table.splitlines():
            device, mountpoint, kind, options, *_ = (_unescape(part) for part in line.split())
            if not _SKIPPED_FILESYSTEMS.fullmatch(kind) and not _SKIPPED_MOUNTS.fullmatch(mountpoint):
                mounts[mountpoint] = (device, kind, "ro" in options.split(","))
        usages = self._mounts.measure(mounts)
        return filesystem_families(
            ({"device": device, "fstype": kind, "mountpoint": mountpoint}, readonly, usages[mountpoint])
            for mountpoint, (device, kind, readonly) in mounts.items()
        )

    def diskstats(self) -> Iterator[Family]:
        columns: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for line in self._read("diskstats").splitlines():
            _, _, device, *numbers = line.split()
            if not _SKIPPED_DISKS.fullmatch(device):
                for (name, factor), number in zip(_DISK_FIELDS, numbers, strict=False):
                    columns.setdefault(name, []).append(({"device": device}, int(number) * factor))
        for name, samples in columns.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            yield labelled(f"node_disk_{name}", kind, f"{name} of /proc/diskstats.", samples)

    def netdev(self) -> Iterator[Family]:
        columns: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        names = [f"receive_{name}" for name in _RECEIVE_FIELDS] + [f"transmit_{name}" for name in _TRANSMIT_FIELDS]
        for line in self._read("net/dev").splitlines()[2:]:
            device, _, numbers = line.rpartition(":")
            if device.strip() != "lo":
                for name, number in zip(names, numbers.split(), strict=False):
                    columns.setdefault(name, []).append(({"device": device.strip()}, float(number)))
        for name, samples in columns.items():
            yield labelled(f"node_network_{name}_total", "counter", f"{name} of /proc/net/dev.", samples)

    def netclass(self) -> Iterator[Family]:
        columns: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for device in sorted(self._net.iterdir()):
            if not (device / "operstate").is_file():
                continue  # such as bonding_masters
            label = {"device": device.name}
            for name, value in _interface_numbers(device):
                columns.setdefault(name, []).append((label, value))
            info = {name: _text(device / name) for name in ("address", "broadcast", "duplex", "ifalias", "operstate")}
            columns.setdefault("info", []).append((label | info, 1.0))
        for name, samples in columns.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            yield labelled(f"node_network_{name}", kind, f"{name} of /sys/class/net.", samples)

    def vmstat(self) -> Iterator[Family]:
        for line in self._read("vmstat").splitlines():
            name, number = line.split()
            if _VMSTAT.fullmatch(name):
                yield single(f"node_vmstat_{name}", "unknown", f"{name} of /proc/vmstat.", float(number))

    def filefd(self) -> Iterator[Family]:
        allocated, _, maximum = self._read("sys/fs/file-nr").split()
        yield single("node_filefd_allocated", "gauge", "File descriptors in use.", float(allocated))
        yield single("node_filefd_maximum", "gauge", "File descriptors at most.", float(maximum))

    def sockstat(self) -> Iterator[Family]:
        page = os.sysconf("SC_PAGE_SIZE")
        for line in (self._read_if_any("net/sockstat") + self._read_if_any("net/sockstat6")).splitlines():
            protocol, *rest = line.split()
            for name, number in zip(rest[::2], rest[1::2], strict=False):
                metric = f"node_sockstat_{protocol.removesuffix(':')}_{name}"
                yield single(metric, "gauge", f"{name} of {protocol} in /proc/net/sockstat.", float(number))
                if name == "mem":
                    yield single(f"{metric}_bytes", "gauge", f"Memory of {protocol} sockets.", float(number) * page)

    def netstat(self) -> Iterator[Family]:
        for name, number in self._netstat_numbers():
            if _NETSTAT.fullmatch(name):
                yield single(f"node_netstat_{name}", "unknown", f"{name} of /proc/net/netstat and snmp.", float(number))

    def _netstat_numbers(self) -> Iterator[tuple[str, str]]:
        for path in ("net/netstat", "net/snmp"):
            lines = self._read_if_any(path).splitlines()
            for names, numbers in zip(lines[::2], lines[1::2], strict=False):
                protocol = names.partition(":")[0]
                pairs = zip(names.split()[1:], numbers.split()[1:], strict=False)
                yield from ((f"{protocol}_{name}", number) for name, number in pairs)
        for line in self._read_if_any("net/snmp6").splitlines():
            name, number = line.split()
            protocol, six, rest = name.partition("6")
            yield f"{protocol}{six}_{rest}", number

    def pressure(self) -> Iterator[Family]:
        """Time lost waiting for a resource, where the kernel counts it."""
        for resource in ("cpu", "io", "memory"):
            for line in self._read_if_any(f"pressure/{resource}").splitlines():
                share, *fields = line.split()
                kind = {"some": "waiting", "full": "stalled"}[share]
                total = dict(field.split("=") for field in fields)["total"]
                if (resource, kind) != ("cpu", "stalled"):
                    text = f"Time in which {'some' if kind == 'waiting' else 'all'} tasks waited for {resource}."
                    yield single(f"node_pressure_{resource}_{kind}_seconds_total", "counter", text, int(total) / 1e6)

    def conntrack(self) -> Iterator[Family]:
        for path, name, text in (
            ("nf_conntrack_count", "entries", "Connections being tracked."),
            ("nf_conntrack_max", "entries_limit", "Connections that can be tracked."),
        ):
            if number := self._read_if_any(f"sys/net/netfilter/{path}"):
                yield single(f"node_nf_conntrack_{name}", "gauge", text, float(number))

    def os(self) -> Iterator[Family]:
        if not self._os_release.is_file():
            return
        pairs = [line.partition("=") for line in self._os_release.read_text(errors="replace").splitlines()]
        values = {name.lower(): value.strip().strip("\"'") for name, _, value in pairs}
        labels = {name: values.get(name, "") for name in _OS_LABELS}
        yield labelled("node_os_info", "gauge", "A constant 1; the labels are those of os-release.", [(labels, 1.0)])
        if version := re.match(r"\d+(\.\d+)?", labels["version_id"]):
            names = {name: labels[name] for name in ("id", "id_like", "name")}
            yield labelled("node_os_version", "gauge", "Major and minor version.", [(names, float(version[0]))])

    def uname(self) -> Iterator[Family]:
        labels = {
            name: self._read(f"sys/kernel/{path}").strip()
            for name, path in (
                ("sysname", "ostype"),
                ("release", "osrelease"),
                ("version", "version"),
                ("nodename", "hostname"),
                ("domainname", "domainname"),
            )
        } | {"machine": os.uname().machine}
        yield labelled("node_uname_info", "gauge", "A constant 1; the labels are those of uname.", [(labels, 1.0)])


def _measure(mountpoint: str) -> Usage:
    found = os.statvfs(mountpoint)
    unit = found.f_frsize
    return Usage(found.f_blocks * unit, found.f_bfree * unit, found.f_bavail * unit, found.f_files, found.f_ffree)


def _unescape(text: str) -> str:
    """The octal escapes of /proc/mounts."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _text(path: Path) -> str:
    """The content of a file of /sys; "" where the driver has nothing to say."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _interface_numbers(device: Path) -> Iterator[tuple[str, float]]:
    """(metric, value) of one network interface."""
    yield "up", float(_text(device / "operstate") == "up")
    for file, name in (
        ("carrier", "carrier"),
        ("carrier_changes", "carrier_changes_total"),
        ("carrier_up_count", "carrier_up_changes_total"),
        ("carrier_down_count", "carrier_down_changes_total"),
        ("dormant", "dormant"),
        ("flags", "flags"),
        ("ifindex", "iface_id"),
        ("iflink", "iface_link"),
        ("link_mode", "iface_link_mode"),
        ("mtu", "mtu_bytes"),
        ("netdev_group", "net_dev_group"),
        ("tx_queue_len", "transmit_queue_length"),
        ("type", "protocol_type"),
    ):
        if text := _text(device / file):
            yield name, float(int(text, 0))
    speed = _text(device / "speed")  # Mbit/s, -1 where it is not known
    if speed and int(speed) >= 0:
        yield "speed_bytes", int(speed) * 1e6 / 8
