"""Clusters that a proxy in front tells apart: it has verified their certificates, and says in a header whose each is.

A secret in another header shows that it is the proxy who says so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from streamgauge.auth.cluster_authority import MAX_ID_BYTES
from streamgauge.errors import BadInput, Forbidden

MAX_FILE_BYTES = 65_536
MIN_SECRET = 16
"""Characters. A shorter one can be guessed by trying."""

_SUBJECT = re.compile(rf"/CN=([a-zA-Z0-9-]{{1,{MAX_ID_BYTES}}})\Z", re.ASCII)
_COMMON_NAME = "/CN="
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case."""


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Names of headers, as they were configured. digest: SHA-256 of the secret."""

    digest: bytes = field(repr=False)
    secret_header: str
    subject_header: str

    def cluster(self, headers: Headers) -> str:
        """Which cluster the proxy says it is. Raises Forbidden."""
        listed = list(headers)
        secret = _only(listed, self.secret_header)
        if not secret:
            raise Forbidden(f"secret must be sent in request header {self.secret_header}")
        if not hmac.compare_digest(hashlib.sha256(secret).digest(), self.digest):
            raise Forbidden("invalid secret")
        subject = _only(listed, self.subject_header)
        if not subject:
            raise Forbidden(
                "subject is empty. Organisation and Common Name name must be sent in request header "
                f"{self.subject_header}"
            )
        text = subject.decode("latin-1")
        found = _SUBJECT.search(text)
        if found is None or text.count(_COMMON_NAME) > 1:  # one of them may stand in the value of something else
            raise Forbidden(f"invalid format for Common Name in http header {self.subject_header}")
        return found[1]


def _only(headers: Headers, name: str) -> bytes:
    """The value of a header; nothing where it comes twice: which of the two the proxy wrote is moot."""
    wanted = name.lower().encode()
    values = [value for given, value in headers if given == wanted]
    return values[0].strip() if len(values) == 1 else b""


def read_client_info(content: bytes) -> ClientInfo:
    """What the reference's JSON file says. Raises BadInput, which does not tell the secret."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise BadInput("it is not JSON") from None
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise BadInput('expected {"secret": …, "config": {"secret_header": …, "common_name_header": …}}')
    secret = document.get("secret")
    if not isinstance(secret, str) or len(secret) < MIN_SECRET:
        raise BadInput(f"secret must be a text of {MIN_SECRET} characters or more")
    names = {key: _name(config, key) for key in ("secret_header", "common_name_header")}
    return ClientInfo(hashlib.sha256(secret.encode()).digest(), names["secret_header"], names["common_name_header"])


def _name(config: dict[str, Any], key: str) -> str:
    name = config.get(key)
    if not isinstance(name, str) or not _HEADER.fullmatch(name):
        raise BadInput(f"config.{key} must be the name of a header")
    return name
