"""Relabelling: rules that rewrite labels or drop what bears them, as in Prometheus 3.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config
Regular expressions are RE2, take linear time whatever they are given, and match the whole value.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from streamgauge.errors import BadInput


class Action(enum.StrEnum):
    REPLACE = "replace"
    KEEP = "keep"
    DROP = "drop"
    KEEP_EQUAL = "keepequal"
    DROP_EQUAL = "dropequal"
    HASHMOD = "hashmod"
    LABELMAP = "labelmap"
    LABELDROP = "labeldrop"
    LABELKEEP = "labelkeep"
    LOWERCASE = "lowercase"
    UPPERCASE = "uppercase"


DEFAULT_REGEX = "(.*)"
DEFAULT_REPLACEMENT = "$1"
DEFAULT_SEPARATOR = ";"


@dataclass(frozen=True, slots=True)
class Rule:
    action: Action = Action.REPLACE
    source_labels: tuple[str, ...] = ()
    separator: str = DEFAULT_SEPARATOR
    regex: str = DEFAULT_REGEX
    target_label: str = ""
    replacement: str = DEFAULT_REPLACEMENT
    modulus: int = 0


_NEEDS_TARGET = frozenset(
    (Action.REPLACE, Action.HASHMOD, Action.LOWERCASE, Action.UPPERCASE, Action.KEEP_EQUAL, Action.DROP_EQUAL)
)
_NO_REPLACEMENT = frozenset((Action.LOWERCASE, Action.UPPERCASE, Action.KEEP_EQUAL, Action.DROP_EQUAL))


def check(rule: Rule) -> None:
    """Raises BadInput for a rule that Prometheus refuses."""
    action = rule.action
    if action is Action.HASHMOD and not rule.modulus:
        raise BadInput("the action hashmod needs a modulus that is not 0")
    if action in _NEEDS_TARGET and not rule.target_label:
        raise BadInput(f"the action {action} needs a target_label")
    if action in _NO_REPLACEMENT and rule.replacement != DEFAULT_REPLACEMENT:
        raise BadInput(f"the action {action} takes no replacement")
    if action in (Action.KEEP_EQUAL, Action.DROP_EQUAL):
        allowed = Rule(action, rule.source_labels, target_label=rule.target_label)
        if rule != allowed:
            raise BadInput(f"the action {action} takes only source_labels and target_label")
    if action in (Action.LABELDROP, Action.LABELKEEP) and rule != Rule(action, regex=rule.regex):
        raise BadInput(f"the action {action} takes only a regex")
    if action is Action.LABELMAP and not rule.replacement:
        raise BadInput("the action labelmap needs a replacement that is not empty")
    _compiled(rule.regex)


Labels = MutableMapping[str, str]
_Step = Callable[[Labels], bool]


class Relabelling:
    """Rules, compiled. Pure: what it gives depends on the labels alone."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._steps: list[_Step] = [_STEPS[rule.action](rule) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._steps)

    def apply(self, labels: Mapping[str, str]) -> dict[str, str] | None:
        """The labels as the rules leave them, without empty ones; None when they are dropped."""
        changed = {name: value for name, value in labels.items() if value}
        for step in self._steps:
            if not step(changed):
                return None
        return changed


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    return options


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    try:
        return re2.compile(f"^(?s:{pattern})$".encode(), _options())
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise BadInput(f"bad regular expression: {text}") from None


def whole_match(pattern: str) -> Callable[[str], bool]:
    """Whether all of a text matches a regular expression. Raises BadInput for one that is none."""
    matches = _compiled(pattern).fullmatch
    return lambda text: matches(text.encode()) is not None


def _set(labels: Labels, name: str, value: str) -> None:
    """An empty value is the same as no label."""
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


def _source(rule: Rule) -> Callable[[Labels], str]:
    names, separator = rule.source_labels, rule.separator
    if len(names) == 1:
        only = names[0]
        return lambda labels: labels.get(only, "")
    return lambda labels: separator.join([labels.get(name, "") for name in names])


def _keep(rule: Rule) -> _Step:
    source, matches = _source(rule), _compiled(rule.regex).fullmatch
    return lambda labels: matches(source(labels).encode()) is not None


def _drop(rule: Rule) -> _Step:
    source, matches = _source(rule), _compiled(rule.regex).fullmatch
    return lambda labels: matches(source(labels).encode()) is None


def _keep_equal(rule: Rule) -> _Step:
    source = _source(rule)
    return lambda labels: labels.get(rule.target_label, "") == source(labels)


def _drop_equal(rule: Rule) -> _Step:
    source = _source(rule)
    return lambda labels: labels.get(rule.target_label, "") != source(labels)


def _replace(rule: Rule) -> _Step:
    source, pattern = _source(rule), _compiled(rule.regex)
    target, replacement = Template(rule.target_label, pattern), Template(rule.replacement, pattern)

    def step(labels: Labels) -> bool:
        match = pattern.fullmatch(source(labels).encode())
        if match is not None and (name := target.expand(match)):
            _set(labels, name, replacement.expand(match))
        return True

    return step


def _hashmod(rule: Rule) -> _Step:
    source = _source(rule)

    def step(labels: Labels) -> bool:
        digest = hashlib.md5(source(labels).encode(), usedforsecurity=False).digest()
        labels[rule.target_label] = str(int.from_bytes(digest[8:]) % rule.modulus)
        return True

    return step


def _labelmap(rule: Rule) -> _Step:
    pattern = _compiled(rule.regex)
    replacement = Template(rule.replacement, pattern)

    def step(labels: Labels) -> bool:
        for name, value in list(labels.items()):
            match = pattern.fullmatch(name.encode())
            if match is not None and (new := replacement.expand(match)):
                _set(labels, new, value)
        return True

    return step


def _without(rule: Rule, matching: bool) -> _Step:
    matches = _compiled(rule.regex).fullmatch

    def step(labels: Labels) -> bool:
        for name in [name for name in labels if (matches(name.encode()) is not None) == matching]:
            del labels[name]
        return True

    return step


def _cased(rule: Rule, change: Callable[[str], str]) -> _Step:
    source = _source(rule)

    def step(labels: Labels) -> bool:
        _set(labels, rule.target_label, _each(source(labels), change))
        return True

    return step


def _each(text: str, change: Callable[[str], str]) -> str:
    """Change letter by letter: a letter stays one letter, as in Prometheus."""
    return "".join(new if len(new := change(letter)) == 1 else letter for letter in text)


_STEPS: Mapping[Action, Callable[[Rule], _Step]] = {
    Action.REPLACE: _replace,
    Action.KEEP: _keep,
    Action.DROP: _drop,
    Action.KEEP_EQUAL: _keep_equal,
    Action.DROP_EQUAL: _drop_equal,
    Action.HASHMOD: _hashmod,
    Action.LABELMAP: _labelmap,
    Action.LABELDROP: lambda rule: _without(rule, matching=True),
    Action.LABELKEEP: lambda rule: _without(rule, matching=False),
    Action.LOWERCASE: lambda rule: _cased(rule, str.lower),
    Action.UPPERCASE: lambda rule: _cased(rule, str.upper),
}

_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class Template:
    """A text with $1, ${1}, $name and ${name} for what groups of a match hold, and $$ for a dollar sign.

    A group that does not exist, or took no part in the match, is empty; `$1x` is the group named 1x, `$01` that named
    01, as in Go (regexp.Expand).
    """

    def __init__(self, text: str, pattern: Any) -> None:
        self._parts: list[str | int] = []
        names = {name.decode() if isinstance(name, bytes) else name: at for name, at in pattern.groupindex.items()}
        at = 0
        for found in _REFERENCE.finditer(text):
            self._parts += (text[at : found.start()], *self._reference(found, names, pattern.groups))
            at = found.end()
        self._parts.append(text[at:])
        texts = [part for part in self._parts if isinstance(part, str)]
        self._plain = "".join(texts) if len(texts) == len(self._parts) else None

    @staticmethod
    def _reference(found: re.Match[str], names: Mapping[str, int], groups: int) -> Iterable[str | int]:
        name = found[1] or found[2]
        if name is None:
            return ("$",)
        number = int(name) if _NUMBER.fullmatch(name) else names.get(name, -1)
        return (number,) if 0 <= number <= groups else ()

    def expand(self, match: Any) -> str:
        if self._plain is not None:
            return self._plain
        parts = [part if isinstance(part, str) else (match.group(part) or b"").decode() for part in self._parts]
        return "".join(parts)
