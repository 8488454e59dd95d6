"""Headers are stored as JSON, without secrets."""

from __future__ import annotations

import json

import pytest

from streamgauge.ingest.request_headers import REDACTED, headers_json


def test_names_are_in_lower_case_and_repeated_headers_are_arrays() -> None:
    text = headers_json([(b"Host", b"a"), (b"X-Id", b"1"), (b"x-id", b"2"), (b"x-name", b"gr\xfc\xdfe")])
    assert json.loads(text) == {"host": "a", "x-id": ["1", "2"], "x-name": "grüße"}
    assert text == '{"host":"a","x-id":["1","2"],"x-name":"grüße"}'


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "proxy-authorization",
        "cookie",
        "Set-Cookie",
        "x-api-key",
        "X-Auth-Token",
        "x-amz-security-token",
        "client-secret",
        "x-password",
        "sec-websocket-protocol",
        "x-hub-signature",
        "x-goog-iap-jwt-assertion",
        "x-passphrase",
        "x-original-cookie",
    ],
)
def test_secrets_are_taken_out(name: str) -> None:
    text = headers_json([(name.encode(), b"hunter2"), (name.encode(), b"hunter3")])
    assert "hunter" not in text
    assert json.loads(text) == {name.lower(): [REDACTED, REDACTED]}


@pytest.mark.parametrize(
    "value",
    [
        "Bearer hunter2",
        "basic aHVudGVyMg==",
        "Token hunter2",
        "ApiKey hunter2",
        "AWS4-HMAC-SHA256 Credential=hunter2",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2ln",
        "user=a; data=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2ln",
    ],
)
def test_credentials_are_taken_out_under_any_name(value: str) -> None:
    assert json.loads(headers_json([(b"x-forwarded-for-somebody", value.encode())])) == {
        "x-forwarded-for-somebody": REDACTED
    }


def test_addresses_lose_their_parameters() -> None:
    headers = [(b"referer", b"https://a.example/x?token=hunter2#y"), (b"origin", b"https://user:hunter2@a.example")]
    assert json.loads(headers_json(headers)) == {"referer": "https://a.example/x", "origin": REDACTED}
    for name in ("x-original-uri", "x-original-url", "x-forwarded-uri", "x-envoy-original-path"):
        assert json.loads(headers_json([(name.encode(), b"/x?token=hunter2")])) == {name: "/x"}
    assert json.loads(headers_json([(b"sec-websocket-key", b"abc")])) == {"sec-websocket-key": "abc"}


def test_no_request_can_say_what_the_server_notes_itself() -> None:
    assert headers_json([(b":owner", b"a"), (b":OWNER", b"a"), (b"x:y", b"1"), (b"host", b"h")]) == '{"host":"h"}'
