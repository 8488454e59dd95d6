"""What a remote write to /metrics/v1/receive shows: base64 of a JSON object with a token and the cluster's id."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from streamgauge.auth.cluster_authority import MAX_ID_BYTES
from streamgauge.errors import BadInput

MAX_BYTES = 16_384
_REMEMBERED = 1_000
"""Credentials that need not be read again, one for each cluster: 2 MB. Who confirms them is asked all the same."""
_REMEMBERED_CHARACTERS = 1_000

_HINT = 'authorize by a bearer token that is the base64 of {"authorization_token": …, "cluster_id": …}'


@dataclass(frozen=True, slots=True)
class ReceiveCredentials:
    """raw: as they came, which is how they are confirmed."""

    raw: bytes = field(repr=False)
    token: str = field(repr=False)
    cluster: str


def read_credentials(authorization: str | None) -> ReceiveCredentials:
    """Raises BadInput.

    Whoever confirms them reads the JSON with another parser. So what parsers read differently is refused: names that
    occur twice, or that differ in case alone, which Go takes for the same.
    """
    text = authorization or ""
    return _remembered(text) if len(text) <= _REMEMBERED_CHARACTERS else _read(text)


def _read(authorization: str) -> ReceiveCredentials:
    words = authorization.split(" ")
    if len(words) != 2 or words[0].lower() != "bearer":
        raise BadInput(_HINT)
    if len(words[1]) > MAX_BYTES:
        raise BadInput(f"the credentials are longer than {MAX_BYTES} characters")
    try:
        raw = base64.b64decode(words[1].encode("ascii"), validate=True)
        members = json.loads(raw.decode(), object_pairs_hook=_members, parse_constant=_no_number)
        json.dumps(members, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (binascii.Error, ValueError, RecursionError):
        raise BadInput(_HINT) from None
    if not isinstance(members, dict):
        raise BadInput(_HINT)
    token, cluster = members.get("authorization_token"), members.get("cluster_id")
    if not isinstance(token, str) or not isinstance(cluster, str) or not token.strip() or not cluster:
        raise BadInput(_HINT)
    if len(cluster.encode()) > MAX_ID_BYTES:
        raise BadInput(f"the id of a cluster has at most {MAX_ID_BYTES} bytes")
    return ReceiveCredentials(raw, token, cluster)


@lru_cache(_REMEMBERED)
def _remembered(authorization: str) -> ReceiveCredentials:
    return _read(authorization)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _no_number(word: str) -> float:
    raise ValueError(word)
