"""tokens.json: durable, whole, and closed when it is damaged."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from streamgauge.errors import Corrupt, FormatTooNew
from streamgauge.model.token import StoredToken
from streamgauge.store import names
from streamgauge.store.token_file import has_tokens, read_tokens, token_problems, write_tokens

TOKENS = (
    StoredToken("0123456789ab", "ci", "00" * 32, ("read", "write"), (("team", "größe"),), 1, 2),
    StoredToken("0123456789ac", "admin", "11" * 32, ("admin",), (), 3, None),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_tokens(tmp_path) is None
    assert not has_tokens(tmp_path)
    write_tokens(tmp_path, TOKENS)
    assert read_tokens(tmp_path) == TOKENS
    write_tokens(tmp_path, ())
    assert read_tokens(tmp_path) == ()
    assert has_tokens(tmp_path)


def test_format_1_can_be_read(tmp_path: Path) -> None:
    line = (
        b'{"version":1,"tokens":[{"id":"0123456789ab","name":"ci","digest":"' + b"00" * 32 + b'",'
        b'"scopes":["read"],"labels":[["team","a"]],"created":5,"expires":null}]}'
    )
    names.tokens_file(tmp_path).write_bytes(line + b"\n%08x\n" % zlib.crc32(line))
    assert read_tokens(tmp_path) == (StoredToken("0123456789ab", "ci", "00" * 32, ("read",), (("team", "a"),), 5),)


def test_any_damage_is_noticed(tmp_path: Path) -> None:
    write_tokens(tmp_path, TOKENS)
    path = names.tokens_file(tmp_path)
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(Corrupt):
            read_tokens(tmp_path)
        path.write_bytes(good[:at])
        with pytest.raises(Corrupt):
            read_tokens(tmp_path)
    assert len(token_problems(tmp_path)) == 1


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    line = json.dumps({"version": 2}).encode()
    names.tokens_file(tmp_path).write_bytes(line + b"\n%08x\n" % zlib.crc32(line))
    with pytest.raises(FormatTooNew, match="format 2"):
        read_tokens(tmp_path)
