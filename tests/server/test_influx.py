"""Programs that write to InfluxDB, and InfluxDB itself beside this server: what one reads the other reads."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streamgauge.testing.influxd import Influxd
from streamgauge.testing.programs import required
from streamgauge.testing.server import ServerProcess

pytestmark = pytest.mark.peer("influxd")

NOW = int(time.time())
LINES = 80
TOKENS = ("a", "b", "v", ",", ",", "=", "=", " ", " ", "1", "2.5", "3i", "t", "\\", '"', "-", ".", "e", "+", "#", "")
GOOD = ("a,b=c,d=e v=1,w=2.5 100", 'a,b=c v="x y",w=t 5', "a\\ b,c\\,=d v=-1e3,w=12i", "a v=.5")
NUMBERS = ("1", "-2.5", ".5", "7.", "1e3", "-1E-3", "12i", "-3i", "007", "t", "False", "0", "1.7976931348623157e308")


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with Influxd(required("influxd"), tmp_path_factory.mktemp("influxd")) as running:
        running.ask('CREATE DATABASE "d"')
        yield running


def complaint(server: ServerProcess, lines: bytes) -> str:
    answer = server.request("POST", "/write?db=d", lines)
    return "" if answer.status == 204 else str(answer.json()["error"])


def _name(draw: random.Random) -> str:
    return (
        "".join(draw.choice(("x", "y", "Z9", "\\,", "\\ ", "\\=", "ä", ".", "-")) for _ in range(3)).strip("-.") + "q"
    )


def test_what_influxdb_stores_is_stored_with_the_same_names_and_values(server: ServerProcess, influxd: Influxd) -> None:
    draw = random.Random(20261127)
    theirs: dict[str, float] = {}
    for number in range(LINES):
        tags = "".join(f",{_name(draw)}{at}={_name(draw)}" for at in range(draw.randrange(3)))
        fields = [f"{_name(draw)}{at}={draw.choice(NUMBERS)}" for at in range(draw.randrange(1, 4))]
        if draw.random() < 0.3:
            fields.append('text="some, text=1 \\" and a\nline"')
        line = f"m{number}{_name(draw)},n={number},test=names{tags} {','.join(fields)} {NOW}000000000".encode()
        assert influxd.write("d", line) == "", line
        assert ("dropped=1" if b"text=" in line else "") in complaint(server, line), line
        for series in influxd.ask(f"SELECT * FROM /^m{number}[^0-9]/ GROUP BY *", "d"):
            for column, value in zip(series["columns"][1:], series["values"][0][1:], strict=True):
                if column != "text":
                    theirs[_series(f"{series['name']}_{column}", series["tags"])] = float(value)
    ours = {}
    for sample in server.query('{test="names"}', NOW):
        name = sample["metric"].pop("__name__")
        ours[_series(name, sample["metric"])] = float(sample["value"][1])
    assert len(ours) >= LINES
    assert ours == theirs


def _series(name: str, labels: dict[str, Any]) -> str:
    return f"{name}{sorted(labels.items())}"


def test_what_influxdb_cannot_parse_is_refused_and_nothing_else(server: ServerProcess, influxd: Influxd) -> None:
    """But for what stands in docs/influx.md as another."""
    draw = random.Random(5)
    verdicts = []
    for _ in range(150):
        line = draw.choice(GOOD)
        for _ in range(draw.randrange(1, 3)):  # put something in the place of a character
            at = draw.randrange(len(line))
            line = line[:at] + draw.choice(TOKENS) + line[at + 1 :]
        if re.search(r'="[^ ,]*"[^ ,]', line):  # a string with something behind its closing quote
            continue
        theirs, ours = influxd.write("d", line.encode()), complaint(server, line.encode())
        assert ("unable to parse" in theirs) == ("unable to parse" in ours), (line, theirs, ours)
        verdicts.append("unable" in ours)
    assert verdicts.count(False) > 10
    assert verdicts.count(True) > 10


def test_the_client_of_1x(server: ServerProcess) -> None:
    influxdb = pytest.importorskip("influxdb")
    client = influxdb.InfluxDBClient("127.0.0.1", server.port, database="d")
    client.create_database("d")
    assert client.get_list_database() == []
    assert client.ping().startswith("1.8")
    point = {"measurement": "one x", "tags": {"client": "1x"}, "time": NOW, "fields": {"v": 2.5, "n": 3, "on": True}}
    assert client.write_points([point], time_precision="s")
    values = {sample["metric"]["__name__"]: sample["value"][1] for sample in server.query('{client="1x"}', NOW)}
    assert values == {"one x_v": "2.5", "one x_n": "3", "one x_on": "1"}
    with pytest.raises(influxdb.exceptions.InfluxDBClientError, match="partial write: field type conflict"):
        client.write_points([{**point, "fields": {"s": "text", "v": 3.5}}], time_precision="s")
    assert server.value('{__name__="one x_v"}', NOW) == 3.5


def test_the_client_of_2x(server: ServerProcess) -> None:
    influxdb_client = pytest.importorskip("influxdb_client")
    options = influxdb_client.client.write_api.SYNCHRONOUS
    with influxdb_client.InfluxDBClient(server.url, token="any", org="o", enable_gzip=True) as client:
        assert client.ping()
        api = client.write_api(write_options=options)
        point = influxdb_client.Point("two").tag("client", "2x").field("v", 1.5).field("n", 2).time(NOW, "s")
        api.write("bucket", record=[point], write_precision="s")
        assert server.value('two_v{client="2x"}', NOW) == 1.5
        with pytest.raises(influxdb_client.rest.ApiException) as refused:
            api.write("bucket", record='two s="text",v=4')
        assert refused.value.status == 422


def test_a_writer_that_floods_with_garbage_harms_nobody(server: ServerProcess, responsive: None) -> None:
    del responsive
    before = server.metric('streamgauge_refused_total{reason="invalid_line",source="influx"}')
    answer = server.request("POST", "/write?db=d", b"nonsense\n" * 20_000)
    assert answer.status == 400
    assert answer.json()["error"].endswith("and 19995 more")
    after = server.metric('streamgauge_refused_total{reason="invalid_line",source="influx"}')
    assert after - before == 20_000
