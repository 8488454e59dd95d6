"""Credentials are read in one way only: what two parsers could read differently is refused."""

from __future__ import annotations

import base64
import json

import pytest

from streamgauge.auth.receive_credentials import ReceiveCredentials, read_credentials
from streamgauge.errors import BadInput


def bearer(content: str | bytes) -> str:
    return "Bearer " + base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def test_reads_token_and_cluster_and_keeps_the_bytes() -> None:
    text = '{"authorization_token": "t", "cluster_id":"ä", "more": [1]}'
    assert read_credentials(bearer(text)) == ReceiveCredentials(text.encode(), "t", "ä")
    assert read_credentials(bearer(text).replace("Bearer", "bEARER")).cluster == "ä"


def test_neither_token_nor_bytes_are_shown() -> None:
    assert "hunter" not in repr(read_credentials(bearer('{"authorization_token":"hunter2","cluster_id":"c"}')))


PAIR = {"authorization_token": "t", "cluster_id": "mine"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '"x"',
        "{",
        "[" * 10_000,
        json.dumps({"authorization_token": "t"}),
        json.dumps({"cluster_id": "c"}),
        json.dumps(PAIR | {"cluster_id": ""}),
        json.dumps(PAIR | {"cluster_id": 5}),
        json.dumps(PAIR | {"authorization_token": " "}),
        json.dumps(PAIR | {"authorization_token": ["t"]}),
        '{"authorization_token":"t","cluster_id":"victim","cluster_id":"mine"}',
        '{"authorization_token":"t","cluster_id":"victim","Cluster_ID":"mine"}',
        '{"authorization_token":"t","cluster_id":"victim","clu\u017fter_id":"mine"}',  # a long s, which folds to s
        '{"authorization_to\u212aen":"t","authorization_token":"x","cluster_id":"c"}',  # a Kelvin sign
        '{"authorization_token":"t","cluster_id":"\\ud800"}',
        '{"authorization_token":"t","cluster_id":"c","x":NaN}',
        b'{"authorization_token":"t","cluster_id":"\xff"}',
    ],
)
def test_refuses_what_is_not_two_texts(content: str | bytes) -> None:
    with pytest.raises(BadInput, match="base64"):
        read_credentials(bearer(content))


GOOD = bearer(json.dumps(PAIR))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        GOOD.removeprefix("Bearer "),
        GOOD.replace("Bearer", "Basic"),
        GOOD.replace(" ", "  "),
        GOOD + " ",
        GOOD.rstrip("=") if GOOD.endswith("=") else GOOD[:-1],
        GOOD[:-2] + "é=",
        "Bearer " + base64.urlsafe_b64encode(b'{"cluster_id":"\xc3\xbf\xc3\xbe\xc3\xbf?>"}').decode() + "-_==",
    ],
)
def test_refuses_a_header_of_another_form(header: str | None) -> None:
    with pytest.raises(BadInput, match="base64"):
        read_credentials(header)


def test_refuses_what_is_too_long() -> None:
    with pytest.raises(BadInput, match="longer than 16384"):
        read_credentials("Bearer " + "A" * 16_388)


def test_a_cluster_has_an_id_as_long_as_at_authorize() -> None:
    longest = "ä" * 127 + "a"
    credentials = {"authorization_token": "t", "cluster_id": longest}
    assert read_credentials(bearer(json.dumps(credentials))).cluster == longest
    with pytest.raises(BadInput, match="at most 255 bytes"):
        read_credentials(bearer(json.dumps(credentials | {"cluster_id": longest + "a"})))
