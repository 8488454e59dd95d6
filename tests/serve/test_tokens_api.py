"""Making, listing and revoking tokens over HTTP."""

from __future__ import annotations

import pytest

from streamgauge.auth.authorities import Authorities
from streamgauge.auth.tokens import Tokens, new_token
from streamgauge.model.token import KEY_HEADER

pytestmark = pytest.mark.anyio

PATH = "/api/v1/admin/tokens"
KEY = {KEY_HEADER: "a key"}


async def test_one_is_made_shown_once_listed_and_revoked(served):
    form = {"name": "ci", "scope": ["write", "read"], "label": ["team=a"], "expires": "1800000000"}
    made = await served.http.post(PATH, data=form, headers=KEY)
    assert (made.status_code, made.headers["cache-control"]) == (200, "no-store")
    token = made.json()["data"].pop("token")
    assert token.startswith("sg_")
    listed = await served.http.get(PATH, headers=KEY)
    assert token.rpartition("_")[2] not in listed.text
    (one,) = listed.json()["data"]
    assert (one["name"], one["scopes"], one["labels"]) == ("ci", ["read", "write"], {"team": "a"})
    assert one["expires"] == 1_800_000_000
    assert (await served.http.delete(f"{PATH}/ci", headers=KEY)).json()["data"] == {"revoked": "ci"}
    assert (await served.http.get(PATH, headers=KEY)).json()["data"] == []


async def test_what_is_wrong_is_said(served, assert_error):
    for form in ({"name": "a b", "scope": "read"}, {"name": "x"}, {"name": "x", "scope": "read", "label": "team"}):
        assert_error(await served.http.post(PATH, data=form, headers=KEY), 400, "bad_data", "")
    assert_error(await served.http.delete(f"{PATH}/nobody", headers=KEY), 404, "not_found", "nobody")


async def test_while_nobody_is_asked_it_takes_the_key_of_the_folder(served, assert_error):
    for headers in ({}, {KEY_HEADER: ""}, {KEY_HEADER: "guess"}):
        assert_error(await served.http.get(PATH, headers=headers), 403, "forbidden", "")
        form = {"name": "x", "scope": "admin"}
        assert_error(await served.http.post(PATH, data=form, headers=headers), 403, "forbidden", "")
    assert served.services.made_tokens == ()


async def test_who_may_do_so_once_tokens_are_asked_for(served, clock, assert_error):
    texts, tokens = {}, []
    for scope in ("read", "admin"):
        texts[scope], token = new_token(scope, [scope], [], clock.now_ms(), None)
        tokens.append(token)
    bound, token = new_token("bound", ["admin"], [("team", "a")], clock.now_ms(), None)
    served.authorities.tokens.replace([*tokens, token])
    served.authorities.asks = True
    assert_error(await served.http.get(PATH), 401, "unauthorized", "token")
    for text in (texts["read"], bound):
        answer = await served.http.get(PATH, headers={"authorization": f"Bearer {text}"})
        assert_error(answer, 403, "forbidden", "")
    assert (await served.http.get(PATH, headers={"authorization": f"Bearer {texts['admin']}"})).status_code == 200
    served.authorities.folder_key = "a key"
    assert (await served.http.get(PATH, headers=KEY)).status_code == 200
    answer = await served.http.get(PATH)
    bearer, basic = answer.headers.get_list("www-authenticate")
    assert (bearer, basic.partition(",")[0]) == ('Bearer realm="streamgauge"', 'Basic realm="streamgauge"')


def test_authorities_are_open_at_first(clock):
    assert Authorities(clock, Tokens(), lambda reason: None).open
