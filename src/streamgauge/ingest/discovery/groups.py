"""What every discovery gives: groups of targets, each target a set of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streamgauge.errors import BadInput

ADDRESS = "__address__"
MAX_TARGETS = 100_000
"""Targets of one answer or file: ten times what one server scrapes, and a bound on what a wrong file can cost."""


@dataclass(frozen=True, slots=True)
class Group:
    """source: where it was found; a later group of the same source takes its place. A target's own labels win over
    those of its group."""

    source: str
    targets: tuple[Mapping[str, str], ...]
    labels: Mapping[str, str]


Found = Callable[[Sequence[Group]], None]
"""Called by a discovery with all of its groups, whenever they have changed."""


class Discovery(Protocol):
    async def run(self, found: Found) -> None:
        """Look for targets until cancelled. What fails is logged and tried again; what was found before stays."""


def parse_groups(document: Any, source: str) -> list[Group]:
    """The groups in a parsed JSON or YAML document: a list of {targets: [address, …], labels: {name: value, …}}.

    Raises BadInput, saying what is wrong with which of them.
    """
    if not isinstance(document, list):
        raise BadInput("expected a list of target groups")
    groups: list[Group] = []
    count = 0
    for number, entry in enumerate(document):
        groups.append(_group(entry, f"{source}:{number}", MAX_TARGETS - count))
        count += len(groups[-1].targets)
    return groups


def _group(entry: Any, source: str, room: int) -> Group:
    number = source.rpartition(":")[2]
    if not isinstance(entry, dict) or not set(entry) <= {"targets", "labels"}:
        raise BadInput(f"group {number}: expected targets and labels, and nothing else")
    targets, labels = entry.get("targets") or [], entry.get("labels") or {}
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise BadInput(f"group {number}: targets must be a list of texts, each host:port")
    if len(targets) > room:
        raise BadInput(f"more than {MAX_TARGETS} targets")
    if not isinstance(labels, dict) or not all(isinstance(name, str) and name for name in labels):
        raise BadInput(f"group {number}: labels must be a mapping of names to values")
    labels = {name: "" if value is None else value for name, value in labels.items()}
    texts = {name: value for name, value in labels.items() if isinstance(value, str)}
    if len(texts) < len(labels):
        raise BadInput(f"group {number}: the values of labels must be texts; write numbers in quotes")
    return Group(source, tuple({ADDRESS: target} for target in targets), texts)
