"""Keys that sign cluster tokens: RSA or ECDSA, in any of the usual files. The key decides the algorithm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from streamgauge.errors import ConfigError

MIN_RSA_BITS = 2048
"""What is shorter has been broken, or soon will be."""
MAX_KEY_BYTES = 65_536

_CURVES: Mapping[str, str] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """algorithm: of RFC 7518, the only one that counts for signatures of this key."""

    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    algorithm: str

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm})"


def read_key(content: bytes, name: str) -> SigningKey:
    """A private key as PKCS#1, PKCS#8 or SEC1, in PEM or DER. `name`: of its file, for errors. Raises ConfigError."""
    try:
        if b"-----BEGIN" in content:
            block = _PEM.search(content)  # a file may also hold the parameters of the curve, or a certificate
            key = load_pem_private_key(block[0] if block else content, None)
        else:
            key = load_der_private_key(content, None)
    except TypeError:
        raise ConfigError(f"{name}: the key is encrypted; give it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{name} holds no private key in PEM or DER") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise ConfigError(f"{name}: an RSA key of {key.key_size} bits is too short; {MIN_RSA_BITS} are the least")
        return SigningKey(key, "RS256")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return SigningKey(key, _CURVES[key.curve.name])
    raise ConfigError(f"{name}: tokens are signed by RSA or by ECDSA with P-256, P-384 or P-521, and by no other key")


def generate_key() -> bytes:
    """A new P-256 key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
