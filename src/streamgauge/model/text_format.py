"""How names and values stand in the Prometheus text format."""

from __future__ import annotations

import re

PLAIN_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
PLAIN_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
"""Names that version 0.0.4 has. Any other stands in quotes, from version 1.0.0 on."""


def escaped(text: str) -> str:
    """As it stands between double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def quoted(text: str) -> str:
    return f'"{escaped(text)}"'


def label_name(name: str) -> str:
    """A label's name before the equals sign."""
    return name if PLAIN_LABEL.fullmatch(name) else quoted(name)
