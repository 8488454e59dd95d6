"""The configuration file of `streamgauge federate`: YAML, whose keys are the flags' names.

A flag that may be given again is a list there, or, where it is made of pairs, a mapping.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from streamgauge.errors import ConfigError
from streamgauge.federate.flags import BY_NAME, Flag

MAX_FILE_BYTES = 1 << 20


def read_values(path: Path) -> dict[str, list[str]]:
    """Values of flags by name. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return parse_values(data, str(path))


def parse_values(data: bytes, name: str) -> dict[str, list[str]]:
    """Raises ConfigError, naming the file."""
    try:
        content: Any = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is no YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is no mapping of flags to values")
    values: dict[str, list[str]] = {}
    for key, value in content.items():
        flag = BY_NAME.get(str(key))
        if flag is None:
            near = difflib.get_close_matches(str(key), BY_NAME, 1)
            raise ConfigError(f"{name}: there is no flag {key}" + (f"; was {near[0]} meant?" if near else ""))
        if value is not None:
            values[flag.name] = _texts(flag, value, name)
    return values


def _texts(flag: Flag, value: Any, name: str) -> list[str]:
    if isinstance(value, Mapping) and flag.many and "=" in flag.metavar:
        return [_quoted(f"{key}={_text(flag, each, name)}") for key, each in value.items()]
    if isinstance(value, list) and flag.many:
        texts = [_text(flag, each, name) for each in value]
        return [_quoted(text) for text in texts] if flag.commas else texts
    return [_text(flag, value, name)]


def _text(flag: Flag, value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{name}: the value of {flag.name} is no text or number")


def _quoted(text: str) -> str:
    """One value, commas or not, where values are separated by commas as in CSV."""
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(c in text for c in ',"\n') else text
