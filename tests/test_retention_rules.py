"""How retention per selector is written."""

import pytest

from streamgauge.errors import BadInput, ConfigError
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.retention_rules import parse_rule, parse_rules, split_rules

DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", []),
        ('{job="debug"}: 1d', ['{job="debug"}: 1d']),
        ('{job="debug"}: 1d, up:30d', ['{job="debug"}: 1d', "up:30d"]),
        ('a{b=~"x,y}"}: 2h,c: 1w', ['a{b=~"x,y}"}: 2h', "c: 1w"]),
        ('a{b="\\",{"}: 2h', ['a{b="\\",{"}: 2h']),
        ("a{b=`,`}:1d,a{b=',}'}:1d", ["a{b=`,`}:1d", "a{b=',}'}:1d"]),
    ],
)
def test_rules_are_told_apart_by_commas_outside_of_selectors(text: str, rules: list[str]) -> None:
    assert list(split_rules(text)) == rules
    assert split_rules(",".join(rules)) == tuple(rules)


def test_the_period_stands_behind_the_last_colon() -> None:
    rule = parse_rule("node:load:avg5m{job!~'a|b'}: 36h")
    assert rule.retention == 36 * 3_600_000
    assert set(rule.matchers) == {
        Matcher("__name__", MatchOp.EQUAL, "node:load:avg5m"),
        Matcher("job", MatchOp.NOT_MATCH, "a|b"),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("up", '"up" is no retention rule; write SELECTOR: DURATION'),
        (": 1d", "is no retention rule"),
        ('{job="a": 1d', "is no retention rule"),
        ("up: soon", '"soon" is not a duration'),
        ("up: 0", "not for ever"),
        ("{}: 1d", "at least one non-empty matcher"),
        ("up[5m]: 1d", "expected a series selector"),
        ("up offset 5m: 1d", "without modifiers"),
        ('{job=~"("}: 1d', "error"),
        ("up: 1d; down: 1d", "unexpected character"),
    ],
)
def test_what_is_no_rule_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint.replace("(", r"\(")):
        split_rules(text)


def test_a_rule_longer_than_the_retention_of_everything_is_refused() -> None:
    assert [rule.retention for rule in parse_rules(["up: 15d"], 15 * DAY)] == [15 * DAY]
    assert [rule.retention for rule in parse_rules(["up: 90d"], 0)] == [90 * DAY]
    with pytest.raises(ConfigError, match='"up: 16d" is longer than retention, 15d'):
        parse_rules(["up: 1d", "up: 16d"], 15 * DAY)
