"""The parts that take pushes go by the configuration in force, and keys outlive the server."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamgauge.auth.cluster_settings import AuthoritySettings, PushToken
from streamgauge.clock import ManualClock
from streamgauge.config import load_config
from streamgauge.errors import Forbidden, NotFound, Unauthorized
from streamgauge.federation import Federation
from streamgauge.federation_config import FederationConfig
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.push_access import kept_key
from streamgauge.stats import Stats

pytestmark = pytest.mark.anyio

TOKENS = (PushToken("me", hashlib.sha256(b"a good token").hexdigest()),)
CONFIG = FederationConfig(PushSettings(whitelist=((),)), AuthoritySettings(push_tokens=TOKENS))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(tmp_path, ManualClock(), Stats(), insecure=False)
    yield federation
    federation.close()


def test_nobody_pushes_without_the_section(federation: Federation, tmp_path: Path) -> None:
    federation.apply(None)
    with pytest.raises(NotFound, match="federation:"):
        _ = federation.access
    assert list(tmp_path.iterdir()) == []


async def test_a_reload_changes_who_may(federation: Federation) -> None:
    federation.apply(CONFIG)
    grant = await federation.access.authorize("Bearer a good token", "c")
    federation.apply(replace(CONFIG, authority=AuthoritySettings(), pushes=PushSettings(ratelimit=5)))
    assert federation.pushes.ratelimit == 5
    with pytest.raises(Forbidden):
        await federation.access.authorize("Bearer a good token", "c")
    assert federation.access.verify(f"Bearer {grant.token}").account == "me"  # the key is the same
    federation.apply(None)
    with pytest.raises(NotFound):
        _ = federation.access


async def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    tokens = []
    for _ in range(2):
        federation = Federation(tmp_path, ManualClock(), Stats(), insecure=False)
        federation.apply(CONFIG)
        tokens.append((await federation.access.authorize("Bearer a good token", "c")).token)
        assert [federation.access.verify(f"Bearer {token}").labels for token in tokens] == [{"_id": "c"}] * len(tokens)
        federation.close()


def test_the_key_is_for_the_servers_user_alone(tmp_path: Path) -> None:
    kept_key(tmp_path)
    (file,) = tmp_path.iterdir()
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_a_damaged_key_is_set_aside_and_another_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept_key(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    before = kept_key(tmp_path)
    assert "set-aside" in caplog.text
    assert kept_key(tmp_path).private.private_numbers() == before.private.private_numbers()


async def test_keys_of_the_file_are_used_and_rotated(tmp_path: Path) -> None:
    kept_key(tmp_path)
    (tmp_path / "cluster-key.pem").rename(tmp_path / "one.pem")
    kept_key(tmp_path)
    (tmp_path / "cluster-key.pem").rename(tmp_path / "two.pem")
    file = tmp_path / "streamgauge.yml"
    digest = TOKENS[0].sha256
    federation = Federation(tmp_path, ManualClock(), Stats(), insecure=False)

    def configured(keys: str) -> None:
        file.write_text(f"federation:\n  {keys}\n  push-tokens: [{{name: me, sha256: {digest}}}]\n")
        federation.apply(load_config(file, {}).federation)

    configured("shared-key: one.pem")
    old = (await federation.access.authorize("Bearer a good token", "c")).token
    configured("shared-keys: [two.pem, one.pem]")
    new = (await federation.access.authorize("Bearer a good token", "c")).token
    assert federation.access.verify(f"Bearer {old}") == federation.access.verify(f"Bearer {new}")
    configured("shared-key: two.pem")
    assert federation.access.verify(f"Bearer {new}").account == "me"
    with pytest.raises(Unauthorized):
        federation.access.verify(f"Bearer {old}")
    assert not (tmp_path / "cluster-key.pem").exists()
    federation.close()


@pytest.mark.parametrize(
    ("insecure", "config", "said"),
    [
        (False, FederationConfig(PushSettings(whitelist=((),)), AuthoritySettings()), "nobody may push"),
        (True, FederationConfig(PushSettings(whitelist=((),)), AuthoritySettings()), "everybody may push"),
        (True, FederationConfig(PushSettings(), AuthoritySettings(push_tokens=TOKENS)), "the whitelist is empty"),
        (True, CONFIG, ""),
    ],
)
def test_the_log_says_what_is_too_open_or_too_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, insecure: bool, config: FederationConfig, said: str
) -> None:
    kept_key(tmp_path)
    federation = Federation(tmp_path, ManualClock(), Stats(), insecure)
    caplog.clear()
    federation.apply(config)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [said in warning for warning in warnings] == ([True] if said else [])
    federation.close()
