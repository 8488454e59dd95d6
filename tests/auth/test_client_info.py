"""A proxy says which cluster a client is: only one that knows the secret, and only in one way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamgauge.auth.client_info import ClientInfo, read_client_info
from streamgauge.errors import BadInput, Forbidden

SECRET = "sixteen letters."
DOCUMENT: dict[str, Any] = {
    "secret": SECRET,
    "config": {"secret_header": "X-Secret", "common_name_header": "X-Subject", "issuer_header": "X-Issuer"},
}
SUBJECT = (b"x-subject", b"/O=1234/CN=web-1")


def info() -> ClientInfo:
    return read_client_info(json.dumps(DOCUMENT).encode())


def secret(value: str = SECRET) -> tuple[bytes, bytes]:
    return b"x-secret", value.encode()


def test_the_subject_says_which_cluster_it_is() -> None:
    assert info().cluster([(b"host", b"x"), SUBJECT, secret()]) == "web-1"
    assert info().cluster([secret(), (b"x-subject", b"/CN=A1")]) == "A1"
    assert SECRET not in repr(info())


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([SUBJECT], "secret must be sent in request header X-Secret"),
        ([SUBJECT, secret("")], "secret must be sent in request header X-Secret"),
        ([SUBJECT, secret(), secret()], "secret must be sent in request header X-Secret"),
        ([SUBJECT, secret("sixteen letters")], "invalid secret"),
        ([SUBJECT, secret("Sixteen letters.")], "invalid secret"),
        ([SUBJECT, (b"x-secret", b"\xff")], "invalid secret"),
        ([secret()], "subject is empty. Organisation and Common Name name must be sent in request header X-Subject"),
        ([secret(), SUBJECT, SUBJECT], "subject is empty"),
        *(
            ([secret(), (b"x-subject", subject)], "invalid format for Common Name in http header X-Subject")
            for subject in (b"web-1", b"/CN=", b"/CN=a b", b"/CN=a/O=1", b"/CN= a", b"/CN=a.b", b"/CN=\xe9", b"CN=a")
        ),
        ([secret(), (b"x-subject", b"/O=1/CN=me/CN=web-1")], "invalid format for Common Name"),  # of one who is me/CN=…
        ([secret(), (b"x-subject", b"/CN=" + b"a" * 256)], "invalid format for Common Name"),
    ],
)
def test_what_is_not_so_is_forbidden(headers: list[tuple[bytes, bytes]], why: str) -> None:
    with pytest.raises(Forbidden) as error:
        info().cluster(headers)
    assert error.value.message.startswith(why)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected"),
        (b"{}", "expected"),
        (json.dumps(DOCUMENT | {"secret": "short"}).encode(), "16 characters"),
        (json.dumps(DOCUMENT | {"secret": None}).encode(), "16 characters"),
        (json.dumps(DOCUMENT | {"config": {"secret_header": "a"}}).encode(), "common_name_header"),
        (
            json.dumps(DOCUMENT | {"config": {"secret_header": "a b", "common_name_header": "b"}}).encode(),
            "secret_header",
        ),
    ],
)
def test_a_file_that_says_something_else_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why) as error:
        read_client_info(content)
    assert SECRET not in error.value.message
