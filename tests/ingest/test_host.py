"""Host metrics: from files like a kernel's, from this very host, and beside a real node_exporter."""

from __future__ import annotations

import asyncio
import logging
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamgauge.clock import ManualClock, SystemClock
from streamgauge.errors import ReadOnly
from streamgauge.ingest.host import HostMetrics, host_collectors
from streamgauge.ingest.host_linux import LinuxHost
from streamgauge.ingest.host_portable import PortableHost
from streamgauge.ingest.sampling import Collect, single
from streamgauge.stats import Family, Stats
from streamgauge.testing import MemorySink

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
EXPORTER = shutil.which("prometheus-node-exporter") or "/usr/bin/prometheus-node-exporter"
linux_only = pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")


def flat(families: Iterator[Family] | list[Family]) -> Samples:
    return {(name, tuple(sorted(labels))): value for family in families for name, labels, value in family.samples}


# ---- from files -----------------------------------------------------------------------------------------------------

FILES = {
    "proc/stat": (
        "cpu  30 0 20 400 10 0 0 0 5 0\ncpu0 10 0 5 200 5 1 2 3 4 5\ncpu1 20 0 15 200 5 0 0 0 1 0\n"
        "intr 12345 1 2 3\nctxt 777\nbtime 1700000000\nprocesses 42\nprocs_running 3\nprocs_blocked 1\n"
    ),
    "proc/meminfo": "MemTotal:  1000 kB\nActive(anon):  7 kB\nHugePages_Total:  3\n",
    "proc/loadavg": "0.50 1.25 2.00 1/100 4242\n",
    "proc/diskstats": (
        " 8 0 sda 100 2 800 500 50 3 400 250 1 600 750 5 6 7 8 9 10\n 8 1 sda1 1 1 1 1 1 1 1 1 1 1 1\n"
        " 7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 9 0 old 1 2 3 4 5 6 7 8 9 10 11\n"
    ),
    "proc/net/dev": (
        "Inter-|   Receive | Transmit\n face |bytes packets|bytes packets\n"
        "    lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n  eth0:100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n"
    ),
    "proc/vmstat": "nr_free_pages 5\npgfault 10\npgmajfault 2\npswpin 1\noom_kill 0\n",
    "proc/sys/fs/file-nr": "1024\t0\t9999\n",
    "proc/net/sockstat": "sockets: used 20\nTCP: inuse 5 mem 3\n",
    "proc/net/netstat": "TcpExt: ListenDrops Odd\nTcpExt: 4 9\n",
    "proc/net/snmp": "Udp: InDatagrams Other\nUdp: 6 9\n",
    "proc/net/snmp6": "Ip6InOctets  77\nIcmp6InMsgs 8\n",
    "proc/pressure/io": "some avg10=0.00 total=2000000\nfull avg10=0.00 total=1500000\n",
    "proc/sys/net/netfilter/nf_conntrack_count": "12\n",
    "proc/sys/kernel/ostype": "Linux\n",
    "proc/sys/kernel/osrelease": "6.1\n",
    "proc/sys/kernel/version": "#1 SMP\n",
    "proc/sys/kernel/hostname": "box\n",
    "proc/sys/kernel/domainname": "(none)\n",
    "sys/class/net/eth0/operstate": "up\n",
    "sys/class/net/eth0/mtu": "1500\n",
    "sys/class/net/eth0/speed": "1000\n",
    "sys/class/net/eth0/flags": "0x1003\n",
    "sys/class/net/eth0/address": "aa:bb\n",
    "sys/class/net/wlan0/operstate": "down\n",
    "sys/class/net/wlan0/speed": "-1\n",
    "sys/class/net/bonding_masters": "\n",
    "etc/os-release": 'NAME="Debian"\nVERSION_ID="12"\nID=debian\n',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    mounts = tmp_path / "proc/self/mounts"
    mounts.parent.mkdir()
    folder = tmp_path / "with space"
    folder.mkdir()
    mounts.write_text(
        f"/dev/sda1 {str(folder).replace(' ', chr(92) + '040')} ext4 ro,relatime 0 0\n"
        "proc /proc proc rw 0 0\ntmpfs /run/x tmpfs rw 0 0\n/dev/gone /no/such/folder ext4 rw 0 0\n"
    )
    return tmp_path


@linux_only
def test_mounts_are_those_of_the_host_and_not_those_that_a_hardened_service_sees(root: Path) -> None:
    (root / "proc/1").mkdir()
    (root / "proc/1/mounts").write_text(f"/dev/sda1 {root} ext4 rw 0 0\n")
    found = flat(LinuxHost(root).filesystem())
    device = (("device", "/dev/sda1"), ("fstype", "ext4"), ("mountpoint", str(root)))
    assert found["node_filesystem_readonly", device] == 0
    assert {labels for name, labels in found if name == "node_filesystem_device_error"} == {device}


@linux_only
def test_what_the_kernel_says_becomes_what_node_exporter_calls_it(root: Path) -> None:
    collectors = LinuxHost(root).collectors()
    found = flat([family for collect in collectors.values() for family in collect()])

    def value(metric: str, **labels: str) -> float:
        return found[metric, tuple(sorted(labels.items()))]

    assert value("node_cpu_seconds_total", cpu="1", mode="user") == 0.2
    assert value("node_cpu_seconds_total", cpu="0", mode="steal") == 0.03
    assert value("node_cpu_guest_seconds_total", cpu="0", mode="nice") == 0.05
    assert ("node_cpu_seconds_total", (("cpu", ""), ("mode", "user"))) not in found
    assert value("node_intr_total") == 12345
    assert value("node_context_switches_total") == 777
    assert value("node_boot_time_seconds") == 1700000000
    assert value("node_forks_total") == 42
    assert (value("node_procs_running"), value("node_procs_blocked")) == (3, 1)
    assert value("node_memory_MemTotal_bytes") == 1024000
    assert value("node_memory_Active_anon_bytes") == 7168
    assert value("node_memory_HugePages_Total") == 3
    assert (value("node_load1"), value("node_load15")) == (0.5, 2.0)
    assert value("node_disk_read_bytes_total", device="sda") == 800 * 512
    assert value("node_disk_io_time_weighted_seconds_total", device="sda") == 0.75
    assert value("node_disk_flush_requests_time_seconds_total", device="sda") == 0.01
    assert value("node_disk_io_now", device="old") == 9
    assert {dict(labels)["device"] for name, labels in found if name.startswith("node_disk_")} == {"sda", "old"}
    assert value("node_network_receive_multicast_total", device="eth0") == 8
    assert value("node_network_transmit_bytes_total", device="eth0") == 900
    assert ("node_network_receive_bytes_total", (("device", "lo"),)) not in found
    assert value("node_network_up", device="eth0") == 1
    assert value("node_network_up", device="wlan0") == 0
    assert value("node_network_speed_bytes", device="eth0") == 125e6
    assert ("node_network_speed_bytes", (("device", "wlan0"),)) not in found
    assert value("node_network_flags", device="eth0") == 0x1003
    assert value("node_vmstat_pgmajfault") == 2
    assert ("node_vmstat_nr_free_pages", ()) not in found
    assert (value("node_filefd_allocated"), value("node_filefd_maximum")) == (1024, 9999)
    assert value("node_sockstat_sockets_used") == 20
    assert value("node_sockstat_TCP_mem_bytes") == 3 * value("node_sockstat_TCP_mem_bytes") / value(
        "node_sockstat_TCP_mem"
    )
    assert value("node_netstat_TcpExt_ListenDrops") == 4
    assert value("node_netstat_Ip6_InOctets") == 77
    assert ("node_netstat_TcpExt_Odd", ()) not in found
    assert value("node_pressure_io_stalled_seconds_total") == 1.5
    assert value("node_nf_conntrack_entries") == 12
    assert value("node_os_version", id="debian", id_like="", name="Debian") == 12.0
    (uname,) = [dict(labels) for name, labels in found if name == "node_uname_info"]
    assert (uname["nodename"], uname["domainname"]) == ("box", "(none)")
    folder = {"device": "/dev/sda1", "fstype": "ext4", "mountpoint": str(root / "with space")}
    assert value("node_filesystem_readonly", **folder) == 1
    assert value("node_filesystem_size_bytes", **folder) == shutil.disk_usage(root).total
    assert value("node_filesystem_device_error", **folder) == 0
    gone = {"device": "/dev/gone", "fstype": "ext4", "mountpoint": "/no/such/folder"}
    assert value("node_filesystem_device_error", **gone) == 1
    assert len([1 for name, _ in found if name == "node_filesystem_device_error"]) == 2


@linux_only
def test_a_kernel_that_lacks_a_file_fails_that_collector_alone(root: Path) -> None:
    for name in ("proc/vmstat", "proc/pressure/io", "proc/net/snmp6"):
        (root / name).unlink()
    sink, stats = MemorySink(), Stats()
    host = HostMetrics(sink, stats, ManualClock(), "box", LinuxHost(root).collectors())
    asyncio.run(host.sample(1000))
    success = {
        labels["collector"]: sink.samples(**labels)[0][1]
        for labels in sink.series()
        if labels["__name__"] == "node_scrape_collector_success"
    }
    assert {name for name, value in success.items() if value == 0} == {"vmstat"}
    assert b'streamgauge_host_collector_failures_total{collector="vmstat"} 1.0' in stats.exposition()


# ---- rounds ---------------------------------------------------------------------------------------------------------


def test_a_failing_collector_is_logged_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broken = True

    def flaky() -> list[Family]:
        if broken:
            raise ValueError("garbage in /proc")
        return [single("node_flaky", "gauge", "Flaky.", 1.0)]

    collectors: dict[str, Collect] = {"flaky": flaky, "fine": lambda: [single("node_fine", "gauge", "Fine.", 2.0)]}
    sink = MemorySink()
    host = HostMetrics(sink, Stats(), ManualClock(), "box", collectors)
    for turn in range(4):
        broken = turn < 2
        asyncio.run(host.sample(1000 * turn))
    assert [record.getMessage() for record in caplog.records] == [
        "host collector flaky failed: ValueError('garbage in /proc')",
        "host collector flaky works again",
    ]
    labels = {"job": "node", "instance": "box"}
    assert sink.samples(__name__="node_fine", **labels) == [(1000 * turn, 2.0) for turn in range(4)]
    assert sink.samples(__name__="node_flaky", **labels) == [(2000, 1.0), (3000, 1.0)]
    assert sink.samples(__name__="up", **labels) == [(1000 * turn, 1.0) for turn in range(4)]
    assert [value for _, value in sink.samples(__name__="scrape_samples_scraped", **labels)] == [1, 1, 2, 2]


def test_a_store_that_refuses_is_tried_again_the_next_round(caplog: pytest.LogCaptureFixture) -> None:
    sink, stats = MemorySink(), Stats()
    host = HostMetrics(sink, stats, ManualClock(), "box", {"fine": lambda: [single("m", "gauge", "M.", 1.0)]})
    sink.failure = ReadOnly("disk full")
    for turn in range(3):
        asyncio.run(host.sample(turn))
    sink.failure = None
    asyncio.run(host.sample(3))
    assert sink.samples(__name__="m", job="node", instance="box") == [(3, 1.0)]
    assert b'streamgauge_sampling_failures_total{source="host"} 3.0' in stats.exposition()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_this_host_is_sampled_at_once_and_each_second() -> None:
    sink, clock = MemorySink(), ManualClock()
    host = HostMetrics(sink, Stats(), clock)
    start = clock.now_ms()

    async def scenario() -> None:
        task = asyncio.create_task(host.run())
        while sink.appends < 1:  # noqa: ASYNC110 - the round runs on a thread of its own
            await asyncio.sleep(0.001)
        await clock.advance(1)
        while sink.appends < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(scenario())
    labels = {"job": "node", "instance": socket.gethostname()}
    assert [when for when, _ in sink.samples(__name__="node_load1", **labels)] == [start, start + 1000]
    assert sink.metadata["node_cpu_seconds_total"].type == "counter"
    names = {series["__name__"] for series in sink.series()}
    assert {"node_memory_MemTotal_bytes", "node_filesystem_size_bytes", "node_uname_info", "up"} <= names


def test_every_family_is_well_formed_on_this_host() -> None:
    for host in (host_collectors(), PortableHost().collectors()):
        seen: set[str] = set()
        for collect in host.values():
            for family in collect():
                assert family.name.startswith("node_")
                assert family.name not in seen
                seen.add(family.name)
                assert family.type in ("counter", "gauge", "unknown")
                assert family.help
                names = [labels for _, labels, _ in family.samples]
                assert len(set(names)) == len(names), family.name
                assert all(isinstance(value, (int, float)) for _, _, value in family.samples)


# ---- beside node_exporter -------------------------------------------------------------------------------------------

COVERED = re.compile(
    r"node_(boot_|context_|cpu_seconds|cpu_guest|disk_|filefd_|filesystem_|forks_|intr_|load|memory_|netstat_|network_"
    r"|nf_conntrack_entries|os_|pressure_|procs_|sockstat_|time_seconds|time_zone|uname_|vmstat_)"
)
NOT_COVERED = re.compile(
    r"node_disk_(info|ata|filesystem|device_mapper)"
    r"|node_network_(address_assign_type|device_id|name_assign_type|receive_nohandler_total)"
)
STEADY = re.compile(
    r"node_(boot_time_seconds|memory_MemTotal_bytes|uname_info|filesystem_(size_bytes|files|readonly)|filefd_maximum"
    r"|network_(mtu_bytes|up|flags)|os_info|os_version)"
)


@pytest.mark.peer("prometheus-node-exporter")
@linux_only
def test_the_names_labels_and_values_are_those_of_node_exporter() -> None:
    if not Path(EXPORTER).exists():
        pytest.skip("prometheus-node-exporter is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    exporter = subprocess.Popen(
        [EXPORTER, f"--web.listen-address={address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        theirs = _scrape(f"http://{address}/metrics")
        ours = flat([family for collect in host_collectors().values() for family in collect()])
    finally:
        exporter.terminate()
        exporter.wait()
    compared = {
        key: value
        for key, value in theirs.items()
        if COVERED.match(key[0]) and not NOT_COVERED.match(key[0])
        if value >= 0  # it shows an unknown speed of an interface as a negative one
    }
    assert len(compared) > 100
    assert set(compared) - set(ours) == set()
    for key, value in compared.items():
        if STEADY.fullmatch(key[0]):
            assert ours[key] == value, key
        elif key[0].endswith("_total"):
            assert ours[key] >= value * 0.999, key
            assert ours[key] <= value * 1.2 + 1e7, key


def _scrape(url: str) -> Samples:
    deadline = time.monotonic() + 10
    while True:
        try:
            text = httpx.get(url, trust_env=False).text
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, "prometheus-node-exporter does not answer"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_round_of_the_real_clock_takes_the_present_time() -> None:
    sink, clock = MemorySink(), SystemClock()
    before = clock.now_ms()
    asyncio.run(HostMetrics(sink, Stats(), clock, "box").sample(clock.now_ms()))
    ((_, now),) = sink.samples(__name__="node_time_seconds", job="node", instance="box")
    assert before <= now * 1000 <= clock.now_ms() + 1
