"""tokens.json: the tokens of a data folder. A file of its own, so that they outlive a catalog that is lost.

    {"version":1,"tokens":[{"id":…,"name":…,"digest":…,"scopes":[…],"labels":[[name,value],…],"created":…,"expires":…}]}
    <CRC-32 of that line, eight hexadecimal digits>

It is replaced as a whole. Once it is there, a server on the folder asks everybody for a token, be there any or none.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamgauge.errors import Corrupt, FormatTooNew
from streamgauge.model.token import StoredToken
from streamgauge.store import fs, names

FORMAT_VERSION = 1
MAX_BYTES = 64 << 20
"""Of the file: 200,000 tokens."""


def has_tokens(data: Path) -> bool:
    """Whether tokens were ever made for a folder."""
    with fs.disk_errors(f"look into {data}"):
        return names.tokens_file(data).exists()


def read_tokens(data: Path) -> tuple[StoredToken, ...] | None:
    """None where none were ever made. Raises Corrupt, FormatTooNew and StorageError."""
    raw = read_raw(data)
    return None if raw is None else _decode(raw, names.tokens_file(data))


def read_raw(data: Path) -> bytes | None:
    """The file as it is. Raises StorageError."""
    try:
        return bytes(fs.read_start(names.tokens_file(data), MAX_BYTES))
    except FileNotFoundError:
        return None


def write_tokens(data: Path, tokens: Iterable[StoredToken]) -> None:
    """Durable when this returns. Raises StorageError, and what was there before is there."""
    document = {"version": FORMAT_VERSION, "tokens": [asdict(token) for token in tokens]}
    line = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    write_raw(data, line + b"\n%08x\n" % zlib.crc32(line))


def write_raw(data: Path, content: bytes) -> None:
    fs.write_atomically(names.tokens_file(data), content)


def token_problems(data: Path) -> list[str]:
    """What is wrong with the file, as sentences."""
    try:
        read_tokens(data)
    except (Corrupt, FormatTooNew) as error:
        return [error.message]
    return []


def _decode(raw: bytes, path: Path) -> tuple[StoredToken, ...]:
    line, _, rest = raw.partition(b"\n")
    if rest != b"%08x\n" % zlib.crc32(line):
        raise Corrupt(
            f"{path} is damaged: its checksum is wrong. No token is accepted; move the file away to make new ones"
        )
    try:
        document = json.loads(line)
        if document["version"] > FORMAT_VERSION:
            raise FormatTooNew(
                f"{path} is of format {document['version']} and this streamgauge knows formats up to {FORMAT_VERSION}; "
                "use the newer one"
            )
        return tuple(map(_token, document["tokens"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{path} makes no sense: {error!r}") from None


def _token(fields: Mapping[str, Any]) -> StoredToken:
    expires = fields["expires"]
    return StoredToken(
        str(fields["id"]),
        str(fields["name"]),
        str(fields["digest"]),
        tuple(map(str, fields["scopes"])),
        tuple((str(name), str(value)) for name, value in fields["labels"]),
        int(fields["created"]),
        None if expires is None else int(expires),
    )
