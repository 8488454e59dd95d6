"""Clients' certificates."""

from __future__ import annotations

from typing import Any

import pytest

from streamgauge.auth.certificates import Certificates, parse_subject, subject_of
from streamgauge.auth.identity import Permission
from streamgauge.auth.rules import CertificateRule, Grant
from streamgauge.errors import BadInput

READS = Grant(frozenset({Permission.READ}))
ENDS = "Nov 26 21:00:00 2030 GMT"
ENDS_MS = 1_921_957_200_000
WHOLE = Certificates([CertificateRule(READS, subject="CN=agent,O=Example\\, Inc.")])
COMMON = Certificates([CertificateRule(READS, common_name="agent")])


def certificate(*parts: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """As `ssl.SSLSocket.getpeercert` describes one."""
    return {"subject": parts, "notAfter": ENDS}


AGENT = certificate((("organizationName", "Example, Inc."),), (("commonName", "agent"),))


def test_the_whole_subject_matches_in_its_order() -> None:
    identity = WHOLE.identity(AGENT, 0)
    assert identity is not None
    assert (identity.name, identity.expires) == ("certificate:CN=agent,O=Example\\, Inc.", ENDS_MS)


@pytest.mark.parametrize(
    "other",
    [
        certificate((("commonName", "agent"),), (("organizationName", "Example, Inc."),)),
        certificate((("organizationName", "Example, Inc."), ("commonName", "agent"))),  # one part of two attributes
        certificate((("commonName", "agent"),)),
        certificate(
            (("organizationName", "Example, Inc."),), (("organizationalUnitName", "x"),), (("commonName", "agent"),)
        ),
        certificate((("organizationName", "example, inc."),), (("commonName", "agent"),)),
        certificate((("organizationName", "Example, Inc."),), (("commonName", "agent "),)),
        certificate(),
        {},
    ],
)
def test_no_other_subject_does(other: dict[str, Any]) -> None:
    assert WHOLE.identity(other, 0) is None


def test_a_common_name_must_be_the_only_one() -> None:
    assert COMMON.identity(AGENT, 0) is not None
    assert COMMON.identity(certificate((("commonName", "agent"),), (("commonName", "root"),)), 0) is None
    assert COMMON.identity(certificate((("commonName", "аgent"),)), 0) is None  # a Cyrillic letter


def test_one_that_expired_while_its_connection_was_open_is_nobodys() -> None:
    assert COMMON.identity(AGENT, ENDS_MS - 1) is not None
    assert COMMON.identity(AGENT, ENDS_MS) is None


def test_names_beyond_those_of_the_rfc() -> None:
    assert parse_subject("emailAddress=a@b.example,CN=x") == subject_of(
        certificate((("commonName", "x"),), (("emailAddress", "a@b.example"),))
    )


@pytest.mark.parametrize("text", ["agent", "CN", "=x", "CN=a,,O=b"])
def test_what_is_no_subject_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="RFC 4514"):
        parse_subject(text)
