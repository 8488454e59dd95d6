"""The section `auth:`: what it comes to, what is refused, and that no secret is shown."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from streamgauge.auth.identity import Permission
from streamgauge.auth.rules import AuthRules
from streamgauge.config import load_config, parse_config
from streamgauge.errors import ConfigError

DIGEST = hashlib.sha256(b"a long enough token").hexdigest()
BCRYPT = "$2b$04$" + "abcdefghijklmnopqrstuu" + "0123456789012345678901234567890"
PAGE = Path(__file__).parents[1] / "docs" / "security.md"


def rules(text: str) -> AuthRules:
    found = parse_config(text, "f.yml", {}).auth
    assert found is not None
    return found


def test_the_example_of_the_documentation_is_right() -> None:
    example, prometheus = re.findall(
        r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    found = rules(example)
    assert (len(found.tokens), len(found.users), len(found.certificates), len(found.issuers)) == (1, 1, 2, 1)
    (issuer,) = found.issuers
    assert issuer.scopes["telemetry.write"] == {Permission.WRITE}
    assert found.tokens[0].grant.bound == (("team", "a"),)
    parse_config(prometheus, "prometheus.yml", {})


def test_an_empty_section_asks_everybody_and_none_nobody() -> None:
    assert rules("auth: {}") == AuthRules()
    assert parse_config("auth:\n", "f.yml", {}).auth is None


def test_a_token_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_text("auth: {tokens: [{name: ci, token_file: ci.token, scopes: [read]}]}")
    (tmp_path / "ci.token").write_text("a long enough token\n")
    found = load_config(tmp_path / "f.yml", {}).auth
    assert found is not None
    assert found.tokens[0].digest.hex() == DIGEST
    (tmp_path / "ci.token").write_text("short")
    with pytest.raises(ConfigError, match="less than 16") as raised:
        load_config(tmp_path / "f.yml", {})
    assert "short" not in raised.value.message


def test_secrets_are_not_shown() -> None:
    config = parse_config(
        f"auth:\n  tokens: [{{name: ci, hash: {DIGEST}, scopes: [read]}}]\n"
        f"  basic_users: {{alice: {{hash: {BCRYPT}, scopes: [read]}}}}\n",
        "f.yml",
        {},
    )
    for text in (config.text, repr(config)):
        assert DIGEST not in text
        assert bytes.fromhex(DIGEST).hex() not in text
        assert BCRYPT not in text
    assert "alice" in config.text


TOKEN = "auth: {tokens: [{name: ci, scopes: [read], %s}]}"
USER = "auth: {basic_users: {alice: {hash: %s, scopes: [read]}}}"
ISSUER = "auth: {jwt: [{issuer: 'https://a.example', audience: b, grant: [read], %s}]}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (TOKEN % "labels: {}", "hash or token_file"),
        (TOKEN % "hash: abc", "64 hexadecimal"),
        (TOKEN % f"hash: {DIGEST}, token_file: x", "hash or token_file"),
        (TOKEN % "token_file: missing", "cannot be read"),
        (TOKEN % f"hash: {DIGEST}, labels: {{__name__: up}}", "bound"),
        (TOKEN % f"hash: {DIGEST}, colour: red", "colour"),
        (TOKEN.replace("read", "fly") % f"hash: {DIGEST}", '"fly" is no scope'),
        (TOKEN.replace("[read]", "[]") % f"hash: {DIGEST}", "at least one scope"),
        (USER % "secret", "no bcrypt hash"),
        (USER % ("$2b$20$" + "." * 53), "cost"),
        ((USER % BCRYPT).replace("alice", '"a:b"'), "colon"),
        ("auth: {certificates: [{scopes: [read]}]}", "subject or common_name"),
        ("auth: {certificates: [{subject: agent, scopes: [read]}]}", "RFC 4514"),
        (ISSUER % "algorithms: [HS256]", '"HS256" is not one of'),
        (ISSUER % "algorithms: [none]", '"none" is not one of'),
        (ISSUER % "jwks_url: 'http://keys.example'", "https"),
        (ISSUER % "jwks_url: 'https://k.example', jwks_file: x", "not both"),
        (ISSUER % "scopes: {x: [fly]}", "no scope"),
        (ISSUER % "labels: {'': org}", "bound"),
        ("auth: {jwt: [{issuer: 'https://a.example', audience: b}]}", "nobody may do anything"),
        ("auth: {jwt: [{issuer: 'http://a.example', audience: b, grant: [read]}]}", "https"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_without_secrets(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text, "f.yml", {})
    assert raised.value.message.startswith("f.yml:1: ")
    assert part in raised.value.message
    for secret in (DIGEST, BCRYPT, "secret"):
        assert secret not in raised.value.message


def test_keys_may_come_from_this_machine_in_the_clear() -> None:
    (issuer,) = rules(ISSUER % "jwks_url: 'http://127.0.0.1:8080/keys'").issuers
    assert issuer.jwks_url == "http://127.0.0.1:8080/keys"
