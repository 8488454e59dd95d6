"""Clients that show a certificate, which the listener has verified, told apart by its subject."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from streamgauge.auth.identity import Identity
from streamgauge.auth.rules import CertificateRule
from streamgauge.errors import BadInput

Subject = tuple[frozenset[tuple[str, str]], ...]
"""The relative names of a subject, from the root on, each with its attributes: dotted identifiers and values."""

_IDENTIFIERS = {
    "commonName": NameOID.COMMON_NAME,
    "countryName": NameOID.COUNTRY_NAME,
    "domainComponent": NameOID.DOMAIN_COMPONENT,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "givenName": NameOID.GIVEN_NAME,
    "localityName": NameOID.LOCALITY_NAME,
    "organizationName": NameOID.ORGANIZATION_NAME,
    "organizationalUnitName": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "stateOrProvinceName": NameOID.STATE_OR_PROVINCE_NAME,
    "streetAddress": NameOID.STREET_ADDRESS,
    "surname": NameOID.SURNAME,
    "title": NameOID.TITLE,
    "userId": NameOID.USER_ID,
}
"""By the names that OpenSSL has for them."""
_SHORT_NAMES = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.TITLE: "title",
}
"""Beside those of RFC 4514."""
_COMMON_NAME = NameOID.COMMON_NAME.dotted_string


def parse_subject(text: str) -> Subject:
    """A subject as RFC 4514 writes it, such as CN=agent,O=Example. Raises BadInput."""
    try:
        name = x509.Name.from_rfc4514_string(text, {short: oid for oid, short in _SHORT_NAMES.items()})
    except ValueError:
        raise BadInput(f'"{text[:100]}" is no subject as RFC 4514 writes it, such as CN=agent,O=Example') from None
    return tuple(frozenset((each.oid.dotted_string, str(each.value)) for each in part) for part in name.rdns)


def subject_of(certificate: Mapping[str, Any]) -> Subject:
    """Of a certificate as the ssl module describes it."""
    return tuple(
        frozenset((_IDENTIFIERS[key].dotted_string if key in _IDENTIFIERS else key, value) for key, value in part)
        for part in certificate.get("subject", ())
    )


def common_name(subject: Subject) -> str | None:
    """None where there is none, or more than one."""
    found = [value for part in subject for key, value in part if key == _COMMON_NAME]
    return found[0] if len(found) == 1 else None


def expiry_of(certificate: Mapping[str, Any]) -> int:
    """When it ends, ms."""
    return ssl.cert_time_to_seconds(certificate["notAfter"]) * 1000


class Certificates:
    def __init__(self, rules: Iterable[CertificateRule]) -> None:
        self._by_subject: dict[Subject, Identity] = {}
        self._by_common_name: dict[str, Identity] = {}
        for rule in rules:
            grant = rule.grant
            identity = Identity(f"certificate:{rule.subject or rule.common_name}", grant.permissions, grant.bound)
            if rule.subject:
                self._by_subject[parse_subject(rule.subject)] = identity
            else:
                self._by_common_name[rule.common_name] = identity

    def identity(self, certificate: Mapping[str, Any], now: int) -> Identity | None:
        """Whose a verified certificate is: by its whole subject if that is listed, else by its common name. now: ms;
        one that has expired since the handshake is nobody's."""
        subject = subject_of(certificate)
        identity = self._by_subject.get(subject)
        if identity is None and (name := common_name(subject)) is not None:
            identity = self._by_common_name.get(name)
        if identity is None:
            return None
        expires = expiry_of(certificate)
        return Identity(identity.name, identity.permissions, identity.bound, expires) if now < expires else None


def described(pem: bytes) -> Mapping[str, Any]:
    """A verified certificate as the ssl module describes it, in so far as it tells whose it is."""
    certificate = x509.load_pem_x509_certificate(pem)
    subject = tuple(
        tuple((each.oid.dotted_string, str(each.value)) for each in part) for part in certificate.subject.rdns
    )
    return {"subject": subject, "notAfter": certificate.not_valid_after_utc.strftime("%b %d %H:%M:%S %Y GMT")}
