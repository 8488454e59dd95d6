"""Any usual file of a key is read, and the key decides how it signs."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from streamgauge.auth.signing_keys import generate_key, read_key
from streamgauge.errors import ConfigError

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def written(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
    encoding: Encoding,
    form: PrivateFormat,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(encoding, form, encryption or NoEncryption())


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])  # which is PKCS#1, SEC1
@pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256")], ids=["ec", "rsa"])
def test_reads_every_form(
    encoding: Encoding, form: PrivateFormat, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: str
) -> None:
    read = read_key(written(key, encoding, form), "k")
    assert read.algorithm == algorithm
    assert read.private.private_numbers() == key.private_numbers()


@pytest.mark.parametrize(("curve", "algorithm"), [(ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")])
def test_the_curve_decides_the_algorithm(curve: ec.EllipticCurve, algorithm: str) -> None:
    key = ec.generate_private_key(curve)
    assert read_key(written(key, Encoding.DER, PrivateFormat.PKCS8), "k").algorithm == algorithm


def test_what_stands_around_the_key_is_passed_over() -> None:
    pem = written(EC, Encoding.PEM, PrivateFormat.TraditionalOpenSSL)
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert read_key(parameters + pem, "k").algorithm == "ES256"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds no private key"),
        (written(EC, Encoding.DER, PrivateFormat.PKCS8)[:-4], "holds no private key"),
        (written(EC, Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "encrypted"),
        (
            written(ed25519.Ed25519PrivateKey.generate(), Encoding.PEM, PrivateFormat.PKCS8),
            "by RSA or by ECDSA with P-256, P-384 or P-521",
        ),
        (written(ec.generate_private_key(ec.SECP256K1()), Encoding.PEM, PrivateFormat.PKCS8), "P-256"),
        (written(rsa.generate_private_key(65537, 1024), Encoding.PEM, PrivateFormat.PKCS8), "1024 bits is too short"),
    ],
)
def test_refuses_what_tokens_cannot_be_signed_with(content: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_key(content, "k")


def test_a_key_that_is_made_can_be_read_and_is_not_shown() -> None:
    key = read_key(generate_key(), "k")
    assert repr(key) == "SigningKey(ES256)"
