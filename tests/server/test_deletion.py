"""Deleting through a real server: every way of reading, hostile requests, a kill, and a full disk."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamgauge.store.failpoints import VARIABLE
from streamgauge.store.verify import check_folder
from streamgauge.testing.remote_read import HEADERS, query, request, samples_answer
from streamgauge.testing.requests import Series, snappy
from streamgauge.testing.server import Response, ServerProcess, eventually
from streamgauge.wire.snappy import decompress

StartServer = Callable[..., ServerProcess]

DELETE, CLEAN = "/api/v1/admin/tsdb/delete_series", "/api/v1/admin/tsdb/clean_tombstones"
NOW = int(time.time()) * 1000


@pytest.fixture
def admin(start_server: StartServer) -> ServerProcess:
    return start_server("--enable-admin-api")


def write(server: ServerProcess, user: str, *ages: int) -> None:
    """One sample for each of the ages, in seconds, which is its value too."""
    points = [(NOW - age * 1000, float(age)) for age in sorted(ages, reverse=True)]
    assert server.write([Series({"__name__": "visits", "user": user}, points)]).status == 204


def delete(server: ServerProcess, *matches: str, **bounds: str) -> Response:
    return server.post(DELETE, {"match[]": list(matches), **bounds})


def seen(server: ServerProcess, user: str) -> list[int]:
    """The values of a user's samples, which are their ages."""
    found = server.samples(f'visits{{user="{user}"}}', NOW / 1000, 7200)
    return sorted(int(value) for _, value in found)


def users(server: ServerProcess) -> set[str]:
    return set(server.data_of("/api/v1/label/user/values"))


def refused(response: Response, status: int, kind: str, part: str) -> None:
    assert response.status == status, response.text
    body: Any = response.json()
    assert (body["status"], body["errorType"]) == ("error", kind)
    assert part in body["error"]


def test_no_way_of_reading_shows_what_was_deleted(start_server: StartServer, tmp_path: Path) -> None:
    held = tmp_path / "held"  # while it exists nothing is carried out on the disk
    held.touch()
    admin = start_server("--enable-admin-api", environment={VARIABLE: f"clean.before_write=hang:{held}"})
    write(admin, "alice", 10, 20)
    write(admin, "bob", 10)
    assert users(admin) == {"alice", "bob"}
    assert delete(admin, 'visits{user="alice"}').status == 204
    assert (seen(admin, "alice"), seen(admin, "bob")) == ([], [10])
    assert users(admin) == {"bob"}
    assert [each["user"] for each in admin.data_of("/api/v1/series", {"match[]": "visits"})] == ["bob"]
    assert admin.data_of("/api/v1/labels", {"match[]": 'visits{user="alice"}'}) == []
    assert "alice" not in admin.get("/federate", {"match[]": "visits"}).text
    body = snappy(request(query(NOW - 3_600_000, NOW, ("__name__", "=", "visits"))))
    answer = admin.request("POST", "/api/v1/read", body, HEADERS)
    ((read,),) = samples_answer(decompress(answer.body, 1 << 20))
    assert ("user", "bob") in read.labels
    write(admin, "alice", 10)
    assert seen(admin, "alice") == [10], "the same sample, written after the deletion"
    assert admin.metric("streamgauge_tombstones") == 1
    assert admin.metric("streamgauge_deletions_total") == 1
    (pending,) = admin.data_of("/api/v1/status/inspect")["tombstones"]
    assert (pending["series"], pending["blocks"]) == (1, 1)
    held.unlink()
    assert admin.post(CLEAN).status == 204
    eventually(lambda: admin.post(CLEAN).status == 204 and admin.metric("streamgauge_tombstones") == 0)
    assert admin.metric("streamgauge_samples_deleted_total") == 2
    assert (seen(admin, "alice"), seen(admin, "bob")) == ([10], [10])
    assert admin.stop() == 0
    assert check_folder(admin.data) == []


def test_what_was_deleted_stays_so_after_kill_9(admin: ServerProcess, start_server: StartServer) -> None:
    write(admin, "alice", 10, 20)
    assert delete(admin, "visits", end=f"{NOW / 1000 - 15}").status == 204
    write(admin, "alice", 30)
    admin.kill()
    again = start_server("--enable-admin-api", data=admin.data)
    assert seen(again, "alice") == [10, 30]
    assert again.post(CLEAN).status == 204
    again.kill()
    assert seen(start_server(data=admin.data), "alice") == [10, 30]


def test_hostile_requests_are_refused_and_delete_nothing(admin: ServerProcess) -> None:
    write(admin, "alice", 10)
    refused(admin.post(DELETE), 400, "bad_data", "no match[]")
    refused(delete(admin, "visits{"), 400, "bad_data", "parse error")
    refused(delete(admin, "sum(visits)"), 400, "bad_data", "expected a series selector")
    refused(delete(admin, "{}"), 400, "bad_data", "at least one non-empty matcher")
    refused(delete(admin, 'visits{user=~"("}'), 400, "bad_data", "illegal regex")
    refused(delete(admin, "visits", 'visits{user=~"("}'), 400, "bad_data", "illegal regex")
    refused(delete(admin, "visits", start="2", end="1"), 400, "bad_data", "end timestamp")
    refused(delete(admin, 'visits{user="' + "a" * 70_000 + '"}'), 400, "bad_data", "")
    refused(delete(admin, "a" * (10 << 20)), 413, "bad_data", "larger than")
    long_path = admin.request("POST", f"{DELETE}?match[]={urllib.parse.quote('a' * 40_000)}")
    assert long_path.status == 414
    assert delete(admin, "nobody").status == 204, "nothing matches: nothing to do"
    assert seen(admin, "alice") == [10]
    assert admin.metric("streamgauge_deletions_total") == 0
    assert delete(admin, '{__name__=~".+"}').status == 204
    assert seen(admin, "alice") == []


def test_a_server_without_the_admin_api_deletes_nothing(start_server: StartServer) -> None:
    server = start_server()
    write(server, "alice", 10)
    for path in (DELETE, CLEAN):
        refused(server.post(path, {"match[]": "visits"}), 503, "unavailable", "--enable-admin-api")
    assert seen(server, "alice") == [10]


def test_a_disk_without_room_refuses_and_nothing_changes(start_server: StartServer, tmp_path: Path) -> None:
    free = str(1 << 60)
    server = start_server("--enable-admin-api")
    write(server, "alice", 10)
    server.stop()
    full = start_server("--enable-admin-api", "--min-free-bytes", free, data=server.data)
    eventually(lambda: full.metric("streamgauge_read_only") == 1)
    refused(delete(full, "visits"), 503, "unavailable", "nothing was deleted: the disk of")
    assert seen(full, "alice") == [10]
