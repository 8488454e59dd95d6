"""The paths of pushes: who is let in, and how what is refused is answered. What becomes of a push has its own tests."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.client_info import ClientInfo
from streamgauge.auth.cluster_access import ClusterAccess
from streamgauge.auth.cluster_settings import AuthoritySettings, PushToken
from streamgauge.auth.push_authorizer import LocalTokens, PushAuthorizer
from streamgauge.auth.receive_credentials import ReceiveCredentials
from streamgauge.auth.signing_keys import generate_key, read_key
from streamgauge.errors import Overloaded, ReadOnly
from streamgauge.serve.services import Replay
from streamgauge.stats import Stats
from streamgauge.testing import requests
from streamgauge.testing.pushes import HEADERS, family, labels, upload

pytestmark = pytest.mark.anyio

KEY = read_key(generate_key(), "k")
TOKEN = "a token of ours"
PATHS = ("/upload", "/metrics/v1/receive")


class Away:
    async def account(self, token: str, cluster: str) -> str:
        raise Overloaded("the authority is away", retry_after=7)

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        raise Overloaded("the authority is away", retry_after=7)

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        return None


@pytest.fixture
def access(served):
    def use(authorizer: PushAuthorizer | None = None, settings: AuthoritySettings | None = None) -> ClusterAccess:
        local = LocalTokens([PushToken("me", hashlib.sha256(TOKEN.encode()).hexdigest())])
        served.services.access = ClusterAccess(
            settings or AuthoritySettings(),
            [KEY],
            authorizer or local,
            served.services.clock,
            AuthorityStats(Stats()),
        )
        return served.services.access

    return use


def credentials(cluster: str = "one") -> dict[str, str]:
    text = json.dumps({"authorization_token": TOKEN, "cluster_id": cluster}).encode()
    return {"authorization": f"Bearer {base64.b64encode(text).decode()}"}


def push(now: int, cluster: str = "one") -> bytes:
    return upload([family("up", [(labels(cluster), 1.0, now)])])


def written(now: int, cluster: str = "one") -> bytes:
    return requests.snappy(requests.v1([requests.Series({"__name__": "up", "_id": cluster}, [(now, 1.0)])]))


async def test_without_federation_there_is_nothing_there(served) -> None:
    for path in PATHS:
        for method in ("GET", "POST"):
            response = await served.http.request(method, path)
            assert (response.status_code, response.headers["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_both_ways_store_what_comes_in_chunks(served, access) -> None:
    now = served.services.pushes._clock.now_ms()
    token = (await access().authorize(f"Bearer {TOKEN}", "one")).token

    async def chunks(body: bytes):
        for start in range(0, len(body), 10):
            yield body[start : start + 10]

    response = await served.http.post(
        "/upload", content=chunks(push(now)), headers={**HEADERS, "authorization": f"bearer {token}"}
    )
    assert (response.status_code, response.content) == (200, b"")
    headers = {**requests.headers(), **credentials()}
    response = await served.http.post("/metrics/v1/receive", content=chunks(written(now + 1)), headers=headers)
    assert (response.status_code, response.content) == (200, b"")
    assert served.services.push_sink.samples(__name__="up", _id="one") == [(now, 1.0), (now + 1, 1.0)]


async def test_methods_are_answered_as_the_original_does(served, access) -> None:
    access()
    assert (await served.http.get("/upload")).status_code == 404
    response = await served.http.get("/metrics/v1/receive")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    for path in PATHS:
        assert (await served.http.post(f"{path}/")).status_code == 404


async def test_who_is_not_let_in_stores_nothing(served, access) -> None:
    now = served.services.pushes._clock.now_ms()
    token = (await access().authorize(f"Bearer {TOKEN}", "one")).token
    bearer = f"Bearer {token}"
    for header in (None, "Basic x", "Bearer", f"Bearer {token[:-3]}AAA", "Bearer " + token.split(".")[0]):
        headers = HEADERS if header is None else {**HEADERS, "authorization": header}
        assert (await served.http.post("/upload", content=push(now), headers=headers)).status_code == 401
    twice = [*HEADERS.items(), ("authorization", bearer), ("authorization", "Bearer x")]
    assert (await served.http.post("/upload", content=push(now), headers=twice)).status_code == 401
    for cluster in ("two", "ONE"):
        headers = {**HEADERS, "authorization": bearer}
        response = await served.http.post("/upload", content=push(now, cluster), headers=headers)
        assert (response.status_code, response.text.splitlines()[0][:28]) == (422, "expected label _id to have v")
        headers = {**requests.headers(), **credentials()}
        response = await served.http.post("/metrics/v1/receive", content=written(now, cluster), headers=headers)
        assert response.status_code == 422
    for header in ("Bearer x", "Basic x"):
        headers = {**requests.headers(), "authorization": header}
        assert (await served.http.post("/metrics/v1/receive", headers=headers)).status_code == 400
    assert served.services.push_sink.batches == []


async def test_an_authority_that_is_away_is_no_fault_of_the_client(served, access) -> None:
    access(Away())
    response = await served.http.post("/metrics/v1/receive", content=b"", headers=credentials())
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")


async def test_a_proxy_may_say_whose_a_remote_write_is(served, access) -> None:
    info = ClientInfo(hashlib.sha256(b"secret").digest(), "X-Secret", "X-Subject")
    access(settings=AuthoritySettings(client_info=info))
    now = served.services.pushes._clock.now_ms()
    told = {**requests.headers(), "x-secret": "secret", "x-subject": "/O=1/CN=one"}
    bare = requests.snappy(requests.v1([requests.Series({"__name__": "up"}, [(now, 1.0)])]))
    for body, more, status in (
        (bare, {}, 200),
        (written(now, "two"), {}, 422),
        (bare, {"x-secret": "other"}, 403),
        (bare, {"x-subject": "one"}, 403),
        (bare, {"authorization": "Bearer x"}, 400),  # what a client shows itself counts before what is said of it
        (written(now + 1), credentials(), 200),
    ):
        response = await served.http.post("/metrics/v1/receive", content=body, headers=told | more)
        assert (response.status_code, more) == (status, more)
    assert served.services.push_sink.samples(__name__="up", _id="one") == [(now, 1.0), (now + 1, 1.0)]
    response = await served.http.post("/metrics/v1/receive", content=bare, headers=requests.headers())
    assert (response.status_code, response.text) == (403, "secret must be sent in request header X-Secret\n")


async def test_pushes_wait_for_the_replay(served, access) -> None:
    access()
    served.services.state = Replay(1, 3, False)
    for path in PATHS:
        assert (await served.http.post(path, headers=credentials())).status_code == 503


async def test_what_repeats_is_taken_at_once_and_held_against_the_same_rules(served, access) -> None:
    services, sink = served.services, served.services.push_sink
    now = services.pushes._clock.now_ms()
    headers = {**HEADERS, "authorization": f"Bearer {(await access().authorize(f'Bearer {TOKEN}', 'one')).token}"}

    async def status(**changes: str) -> int:
        response = await served.http.post("/upload", content=push(now), headers={**headers, **changes})
        return int(response.status_code)

    assert [await status() for _ in range(3)] == [200] * 3
    assert repeats(services) == 2
    assert await status(origin="http://foreign.example") == 403
    assert await status(host="foreign.example") == 403
    assert await status(authorization=headers["authorization"] + "x") == 401
    sink.failure = ReadOnly("the disk is full")
    response = await served.http.post("/upload", content=push(now), headers=headers)
    assert (response.status_code, response.text) == (ReadOnly.status, "the disk is full\n")
    sink.failure = None
    assert repeats(services) == 2
    assert (await served.http.put("/upload", content=push(now), headers=headers)).status_code == 404
    services.access._tokens._clock.jump(365 * 86_400_000)
    assert await status() == 401
    services.access = None
    assert await status() == 404
    assert sink.appends == 3
    assert served.stats.requests["/upload", 200] == 3
    assert served.stats.requests["/upload", ReadOnly.status] == 1


def repeats(services) -> float:
    services.pushes._stats.repeats.enter()
    (metric,) = services.pushes._stats.layouts.labels("same").collect()
    return float(metric.samples[0].value)
