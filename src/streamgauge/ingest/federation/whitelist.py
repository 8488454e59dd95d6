"""Which series of a push are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamgauge.model.source import Matcher, MatchOp
from streamgauge.relabel import whole_match

METRIC_NAME = "__name__"
_ENDINGS = ("", "_total", "_bucket", "_count", "_sum")
"""Of the names of series behind that of their metric."""

_Check = tuple[str, Callable[[str], bool]]
"""The name of a label, and what its value must fulfil."""


class Whitelist:
    """Rules, each a set of matchers; a series that fulfils all matchers of one of them is allowed, so that without
    rules none is. Unlike in PromQL a matcher is not fulfilled by a series without the label that it names."""

    def __init__(self, rules: Sequence[Sequence[Matcher]]) -> None:
        """Raises BadInput for a regular expression that is none."""
        self._rules = [[(matcher.name, _check(matcher)) for matcher in rule] for rule in rules]
        self.allows_all = any(not rule for rule in self._rules)

    @property
    def denies_all(self) -> bool:
        return not self._rules

    def allows(self, metric: str, labels: Mapping[str, str]) -> bool:
        """labels: without the metric's name."""
        return self.allows_all or any(all(_holds(check, metric, labels) for check in rule) for rule in self._rules)

    def describes(self, metric: str) -> bool:
        """Whether a series of the metric, whatever labels it has, may be allowed: only then its help is kept."""
        return self.allows_all or any(
            all(fulfils(metric + ending) for name, fulfils in rule if name == METRIC_NAME)
            for rule in self._rules
            for ending in _ENDINGS
        )


def _check(matcher: Matcher) -> Callable[[str], bool]:
    wanted = matcher.value
    match matcher.op:
        case MatchOp.EQUAL:
            return lambda value: value == wanted
        case MatchOp.NOT_EQUAL:
            return lambda value: value != wanted
        case MatchOp.MATCH:
            return whole_match(wanted)
        case MatchOp.NOT_MATCH:
            matches = whole_match(wanted)
            return lambda value: not matches(value)


def _holds(check: _Check, metric: str, labels: Mapping[str, str]) -> bool:
    name, fulfils = check
    value = metric if name == METRIC_NAME else labels.get(name)
    return value is not None and fulfils(value)
