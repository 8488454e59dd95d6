"""What answers of a server mean."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from pathlib import Path

import pytest

from streamgauge.clock import SystemClock
from streamgauge.errors import FetchFailed
from streamgauge.federate.config import make_config
from streamgauge.federate.target import Target, Verdict, outcome_of, read_grant
from streamgauge.http.client import Answer, Resolver
from streamgauge.testing.certificates import CertificateAuthority
from streamgauge.testing.federation import grant
from streamgauge.testing.target import http_target


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.TAKEN),
        (204, Verdict.FAILED),
        (301, Verdict.FAILED),
        (400, Verdict.REFUSED),
        (401, Verdict.FAILED),
        (403, Verdict.FAILED),
        (404, Verdict.FAILED),
        (413, Verdict.TOO_LARGE),
        (415, Verdict.REFUSED),
        (422, Verdict.REFUSED),
        (429, Verdict.LATER),
        (500, Verdict.FAILED),
        (502, Verdict.FAILED),
        (503, Verdict.FAILED),
    ],
)
def test_statuses(status: int, verdict: Verdict) -> None:
    outcome = outcome_of(Answer(status, "Word", {}, b"why\nnot\n", 8), "http://s/upload")
    assert outcome.verdict is verdict
    assert outcome.message == ("" if status == 200 else f"http://s/upload answered {status} Word: why not")


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("0", 0), ("99999999", 3600), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
def test_retry_after(text: str, seconds: float | None) -> None:
    outcome = outcome_of(Answer(503, "", {"retry-after": text}, b"", 0), "u")
    assert outcome.retry_after == seconds
    assert outcome.verdict is (Verdict.FAILED if seconds is None else Verdict.LATER)


def test_a_long_answer_is_cut() -> None:
    assert len(outcome_of(Answer(500, "", {}, b"x" * 10_000, 10_000), "u").message) < 400


@pytest.mark.parametrize(("seconds", "until"), [(86_400, 86_485), (60, 145), (8, 106), (0, 100), (-5, 96.25)])
def test_how_long_a_token_is_used(seconds: int, until: float) -> None:
    reply = {"version": 1, "token": "t", "expiresInSeconds": seconds, "labels": {"a": "b"}}
    grant = read_grant(json.dumps(reply).encode(), 100)
    assert (grant.token, grant.labels, grant.until) == ("t", {"a": "b"}, until)


def test_a_token_without_an_end_and_without_labels() -> None:
    grant = read_grant(b'{"token":"t","labels":null}', 100)
    assert (grant.labels, grant.until) == ({}, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token":5}',
        b'{"token":""}',
        b'{"token":"t","labels":{"a":1}}',
        b'{"token":"t","labels":[1]}',
        b'{"token":"t","expiresInSeconds":"5"}',
        b'{"token":"t","expiresInSeconds":true}',
        b"\xff",
        b"[" * 16_000,
        b'{"token":"' + b"t" * 20_000 + b'"}',
    ],
)
def test_a_grant_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(FetchFailed, match="cannot be read"):
        read_grant(body, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("shown", [True, False])
async def test_a_server_may_want_a_certificate(tmp_path: Path, shown: bool) -> None:
    authority = CertificateAuthority(tmp_path)
    server, client = authority.issue("CN=server"), authority.issue("CN=cluster")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    flags = {"to-cert-file": [str(client.cert)], "to-key-file": [str(client.key)]} if shown else {}
    resolver = Resolver()
    async with http_target(context) as asked:
        asked.reply = grant("an access token")
        to = f"https://127.0.0.1:{asked.port}"
        given = {"from": ["http://p"], "to": [to], "to-token": ["x"], "to-ca-file": [str(authority.file)]}
        target = Target(make_config({**given, **flags}), SystemClock(), resolver, Counter())
        if shown:
            assert (await target.grant()).token == "an access token"
        else:
            with pytest.raises(FetchFailed):
                await target.grant()
            assert not asked.requests
        target.close()
    resolver.close()
