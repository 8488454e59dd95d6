"""POST /authorize answers as the reference does, in the same order of checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest

from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.cluster_access import ClusterAccess
from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.auth.cluster_settings import AuthoritySettings, PushToken
from streamgauge.auth.push_authorizer import LocalTokens, Nobody
from streamgauge.auth.receive_credentials import ReceiveCredentials
from streamgauge.auth.signing_keys import generate_key, read_key
from streamgauge.errors import Overloaded, RateLimited, StreamgaugeError, UpstreamRefused
from streamgauge.stats import Stats

pytestmark = pytest.mark.anyio

KEY = read_key(generate_key(), "k")
TOKEN = PushToken("me", hashlib.sha256(b"tok en").hexdigest())
FORM = {"content-type": "application/x-www-form-urlencoded"}
BEARER = {"authorization": "Bearer tok en"}


class Refusing:
    """Whoever is asked raises one error."""

    def __init__(self, error: StreamgaugeError) -> None:
        self.error = error

    async def account(self, token: str, cluster: str) -> str:
        raise self.error

    async def confirm(self, credentials: ReceiveCredentials) -> str:
        raise self.error

    def confirmed(self, credentials: ReceiveCredentials) -> str | None:
        return None


def access(served, authorizer=None, **settings) -> ClusterAccess:
    authorizer = authorizer or LocalTokens([TOKEN])
    stats = AuthorityStats(Stats())
    served.services.access = ClusterAccess(
        AuthoritySettings(**settings), [KEY], authorizer, served.services.clock, stats
    )
    return served.services.access


async def test_a_client_gets_a_token_for_its_cluster(served):
    given = access(served, expire_seconds=60)
    response = await served.http.post("/authorize?id=c1", headers=BEARER)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    answer = json.loads(response.text)
    token = answer["token"]
    assert response.text == (f'{{"version":1,"token":"{token}","expiresInSeconds":60,"labels":{{"_id":"c1"}}}}')
    assert given.verify(f"bearer {token}") == ClusterIdentity("me", {"_id": "c1"})


async def test_required_labels_are_part_of_it(served):
    given = access(served, partition_label="cluster", required_labels=(("Z", "1"), ("zone", "x")))
    answer = (await served.http.post("/authorize?id=c1", headers=BEARER)).json()
    assert list(answer["labels"].items()) == [("Z", "1"), ("cluster", "c1"), ("zone", "x")]
    assert given.verify("Bearer " + answer["token"]).labels == answer["labels"]


@pytest.mark.parametrize(
    ("query", "form", "headers", "cluster"),
    [
        ("?id=a", "", {}, "a"),
        ("", "id=b", FORM, "b"),
        ("?id=a", "id=b", FORM, "b"),
        ("?id=a", "id=b", {"content-type": "Application/X-WWW-Form-Urlencoded; charset=x"}, "b"),
        ("?id=a", "id=b", {"content-type": "multipart/form-data; boundary=x"}, "a"),
        ("?id=a", '{"id":"b"}', {"content-type": "application/json"}, "a"),
        ("?id=a", "%zz", {"content-type": "text/plain"}, "a"),
        ("?id=a&id=b", "", {}, "a"),
        ("?x=1&&id=%C3%A4+%2B", "", {}, "ä +"),
        ("?id=%20", "", {}, " "),
        ("?id=%D0%B0", "", {}, "а"),  # Cyrillic, and kept distinct from a
    ],
)
async def test_where_the_id_stands(served, query: str, form: str, headers: Mapping[str, str], cluster: str) -> None:
    access(served)
    response = await served.http.post(f"/authorize{query}", content=form.encode(), headers=BEARER | headers)
    assert response.json()["labels"] == {"_id": cluster}


MISSING = "The 'id' parameter must be specified via URL or url-encoded form body"


@pytest.mark.parametrize(
    ("query", "form", "headers", "status", "message"),
    [
        ("", "", {}, 400, MISSING),
        ("?id=", "", BEARER, 400, MISSING),
        ("?id=a", "id=", FORM | BEARER, 400, MISSING),
        ("?ID=a", "", BEARER, 400, MISSING),
        ("?id=%zz", "", {}, 400, 'invalid URL escape "%zz"'),
        ("?id=a&x=%4", "", {}, 400, 'invalid URL escape "%4"'),
        ("?id=a;b=c", "", {}, 400, "invalid semicolon separator in query"),
        ("?id=%FF", "", {}, 400, "a parameter is not UTF-8"),
        ("?id=" + "a" * 256, "", {}, 400, "the id of a cluster has at most 255 bytes"),
        ("?id=a", "id=b&x=" + "y" * 4096, FORM, 400, "http: request body too large"),
        ("?id=a", "", {}, 401, "Only bearer authorization allowed"),
        ("?id=a", "", {"authorization": "Basic dG9rOmVu"}, 401, "Only bearer authorization allowed"),
        ("?id=a", "", {"authorization": "Bearer"}, 401, "Invalid Authorization header"),
        ("?id=a", "", {"authorization": "Bearer other"}, 401, "unauthorized"),
    ],
)
async def test_the_first_failure_wins(
    served, query: str, form: str, headers: Mapping[str, str], status: int, message: str
) -> None:
    access(served)
    response = await served.http.post(f"/authorize{query}", content=form.encode(), headers=headers)
    assert (response.status_code, response.text) == (status, f"{message}\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_two_authorizations_are_none(served):
    access(served)
    headers = [("authorization", "Bearer tok en"), ("authorization", "Bearer other")]
    response = await served.http.post("/authorize?id=a", headers=headers)
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (UpstreamRefused("in use", 409), 409, None),
        (RateLimited("later", 300), 429, "300"),
        (Overloaded("away", 30), 503, "30"),
    ],
)
async def test_what_the_authority_says_is_answered(served, error: StreamgaugeError, status: int, retry: str | None):
    access(served, Refusing(error))
    response = await served.http.post("/authorize?id=a", headers=BEARER)
    assert (response.status_code, response.text) == (status, f"{error.message}\n")
    assert response.headers.get("retry-after") == retry


async def test_without_an_authority_nobody_gets_one(served):
    access(served, Nobody())
    response = await served.http.post("/authorize?id=a", headers=BEARER)
    assert response.status_code == 403
    assert "neither push-tokens nor authorize" in response.text


async def test_there_is_nothing_without_the_section_and_nothing_but_post(served):
    assert (await served.http.post("/authorize?id=a", headers=BEARER)).status_code == 404
    access(served)
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        response = await served.http.request(method, "/authorize?id=a", headers=BEARER)
        assert response.status_code == 404, method
    assert (await served.http.post("/authorize/?id=a", headers=BEARER)).status_code == 404
