"""An issuer of signed tokens, for tests."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


class Signer:
    """One RSA key of an issuer. Without a `kid` neither its tokens nor its key have one."""

    def __init__(self, kid: str | None = "one", bits: int = 2_048) -> None:
        self.kid = kid
        self._bits = bits

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        """Made when it is first used: that takes a tenth of a second."""
        return rsa.generate_private_key(public_exponent=65_537, key_size=self._bits)

    @property
    def jwk(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(self.key.public_key()))
        return {**document, "use": "sig", **({"kid": self.kid} if self.kid else {})}

    def sign(self, claims: dict[str, Any], algorithm: str = "RS256", **header: Any) -> str:
        return jwt.encode(claims, self.key, algorithm, {**({"kid": self.kid} if self.kid else {}), **header})


def key_set(*signers: Signer) -> bytes:
    """The document that an issuer publishes."""
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()
