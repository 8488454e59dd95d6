"""Tokens that are made at run time."""

from __future__ import annotations

import re

import pytest

from streamgauge.auth.identity import Identity, Permission
from streamgauge.auth.tokens import Tokens, added, new_token, without
from streamgauge.errors import BadInput, NotFound

NOW = 1_700_000_000_000


def test_a_token_is_known_by_its_text_which_is_kept_nowhere() -> None:
    text, token = new_token("ci", ["write", "read"], [("zone", "b"), ("team", "a")], NOW, NOW + 1)
    assert re.fullmatch(r"sg_[0-9a-f]{12}_[0-9a-f]{64}", text)
    bound = (("team", "a"), ("zone", "b"))
    permissions = frozenset({Permission.READ, Permission.WRITE})
    assert Tokens([token]).identity(text) == Identity("token:ci", permissions, bound, NOW + 1)
    secret = text.rpartition("_")[2]
    assert secret not in repr(token)
    assert token.digest not in repr(token)
    assert secret not in token.digest


def test_no_other_text_is_one() -> None:
    text, token = new_token("ci", ["read"], [], NOW, None)
    other, _ = new_token("ci", ["read"], [], NOW, None)
    tokens = Tokens([token])
    mixed = text[: text.rindex("_")] + other[other.rindex("_") :]  # the id of one, the secret of another
    for wrong in (other, mixed, text[:-1], f"{text}0", f"{text}\n", text.upper(), "sg_", "", "sg_\ud800"):
        assert tokens.identity(wrong) is None


@pytest.mark.parametrize(
    ("name", "scopes", "labels"),
    [
        ("", ["read"], []),
        ("a b", ["read"], []),
        ("../x", ["read"], []),
        ("x" * 65, ["read"], []),
        ("ci", [], []),
        ("ci", ["root"], []),
        ("ci", ["read"], [("team", "")]),
        ("ci", ["read"], [("", "a")]),
        ("ci", ["read"], [("__name__", "up")]),
        ("ci", ["read"], [("team", "a"), ("team", "b")]),
    ],
)
def test_what_is_no_token_is_refused(name: str, scopes: list[str], labels: list[tuple[str, str]]) -> None:
    with pytest.raises(BadInput):
        new_token(name, scopes, labels, NOW, None)


def test_one_that_would_have_expired_is_refused() -> None:
    with pytest.raises(BadInput, match="expired"):
        new_token("ci", ["read"], [], NOW, NOW)


def test_names_are_taken_once_and_revoked_by_name() -> None:
    _, first = new_token("ci", ["read"], [], NOW, None)
    _, second = new_token("ci", ["admin"], [], NOW, None)
    with pytest.raises(BadInput, match="already"):
        added((first,), second)
    assert without((first,), "ci") == ()
    with pytest.raises(NotFound):
        without((first,), "other")


def test_a_scope_that_a_later_version_has_permits_nothing() -> None:
    text, token = new_token("ci", ["read"], [], NOW, None)
    later = type(token)(token.id, token.name, token.digest, ("read", "fly"), (), NOW)
    identity = Tokens([later]).identity(text)
    assert identity is not None
    assert identity.permissions == {Permission.READ}
