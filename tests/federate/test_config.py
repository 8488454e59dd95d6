"""Flags and the configuration file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgauge.commands.federate import given_flags
from streamgauge.errors import ConfigError
from streamgauge.federate.config import FederateConfig, make_config
from streamgauge.federate.config_file import parse_values, read_values
from streamgauge.federate.flags import FLAGS
from streamgauge.federate.source import scrape_url

DOCS = Path(__file__).resolve().parents[2] / "docs" / "federate.md"


def config(**flags: str | list[str]) -> FederateConfig:
    """Of flags, with underscores for hyphens and what is always needed beside them."""
    given = {"from_": "http://p:9090", "to": "http://s", "to_token": "secret", **flags}
    values = {name.rstrip("_").replace("_", "-"): [v] if isinstance(v, str) else v for name, v in given.items()}
    return make_config({name: value for name, value in values.items() if value})


def test_defaults_are_those_of_the_reference() -> None:
    made = config()
    assert made.rules == ('{__name__="up"}',)
    assert made.transforms.renames == {"ALERTS": "alerts"}
    assert (made.interval, made.limit_bytes, made.listen) == (270_000, 204_800, "localhost:9002")
    assert (made.transforms.labels, made.transforms.anonymize, made.log_level) == ({}, frozenset(), "info")
    assert config(interval="0").interval == 270_000


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://p:9090", "http://p:9090/federate"),
        ("http://p:9090/", "http://p:9090/federate"),
        ("http://p:9090/prom/federate/", "http://p:9090/prom/federate"),
        ("https://u:p@p/x?match[]=all#f", "https://u:p@p/x"),
    ],
)
def test_where_is_scraped(given: str, url: str) -> None:
    assert config(from_=given).source == url


def test_selectors_go_in_their_order() -> None:
    assert scrape_url("http://p/federate", ['{a="b c"}', "up"]) == (
        "http://p/federate?match%5B%5D=%7Ba%3D%22b+c%22%7D&match%5B%5D=up"
    )


@pytest.mark.parametrize(
    ("flags", "authorize", "upload"),
    [
        ({"to": "http://s"}, "http://s/authorize", "http://s/upload"),
        ({"to": "http://s/base/", "id": "a b"}, "http://s/base/authorize?id=a+b", "http://s/base/upload"),
        ({"to": "http://s?x=1", "id": "c"}, "http://s/authorize?x=1&id=c", "http://s/upload?x=1"),
        ({"to": "http://s", "to_upload": "http://u/here"}, "http://s/authorize", "http://u/here"),
        ({"to": "http://s", "to_auth": "http://a/auth", "id": "c"}, "http://a/auth", "http://s/upload"),
        ({"to": "", "to_auth": "http://a/1", "to_upload": "http://u/2"}, "http://a/1", "http://u/2"),
    ],
)
def test_where_is_pushed(flags: dict[str, str], authorize: str, upload: str) -> None:
    made = config(**flags)
    assert (made.authorize, made.upload) == (authorize, upload)


def test_commas_and_repetitions() -> None:
    made = config(label=["a=1,b=2=3", "c="], rename=["x=y"], anonymize_labels=["a,b", "c"], anonymize_salt=" s ")
    assert made.transforms.labels == {"a": "1", "b": "2=3", "c": ""}
    assert made.transforms.renames == {"x": "y"}
    assert made.transforms.anonymize == {"a", "b", "c"}
    assert made.transforms.salt == " s "
    assert config(match=['{a=~"x,y"}', "up"]).rules == ('{a=~"x,y"}', "up")
    assert config(rename=[""]).transforms.renames == {}


def test_literals_beat_files_and_files_are_trimmed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(" in file \n")
    lines = tmp_path / "match"
    lines.write_text('\n  {a="b"}  \n\nup\n')
    made = config(
        to_token="", to_token_file=str(file), anonymize_labels="a", anonymize_salt_file=str(file), match_file=str(lines)
    )
    assert made.token.read() == "in file"
    assert made.transforms.salt == "in file"
    assert made.rules == ('{__name__="up"}', '{a="b"}', "up")
    both = config(to_token_file=str(file), anonymize_salt="x", anonymize_salt_file="/none", anonymize_labels="a")
    assert (both.token.read(), both.transforms.salt) == ("secret", "x")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"from_": ""}, "--from is missing"),
        ({"from_": "ftp://x"}, "--from is no http or https URL"),
        ({"from_": "http://["}, "--from is no http or https URL"),
        ({"to": ""}, "--to is missing"),
        ({"to": "", "to_auth": "http://a"}, "--to is missing"),
        ({"to": "", "to_upload": "http://a"}, "--to is missing"),
        ({"to_upload": "here"}, "--to-upload is no http"),
        ({"to_token": ""}, "--to-token or --to-token-file is missing"),
        ({"to_token": "", "to_token_file": "/none"}, "/none cannot be read"),
        ({"from_token_file": "/none"}, "/none cannot be read"),
        ({"from_ca_file": "/none"}, "/none"),
        ({"match_file": "/none"}, "--match-file /none cannot be read"),
        ({"anonymize_labels": "a"}, "--anonymize-labels needs"),
        ({"label": "novalue"}, "--label novalue is not of the form NAME=VALUE"),
        ({"rename": "novalue"}, "--rename novalue is not of the form OLD=NEW"),
        ({"tls_cert_file": "/a"}, "--tls-cert-file and --tls-private-key-file belong together"),
        ({"to_key_file": "/a"}, "--to-cert-file and --to-key-file belong together"),
        ({"to_cert_file": "/none", "to_key_file": "/none"}, "/none"),
        ({"interval": "soon"}, "--interval"),
        ({"interval": "25h"}, "--interval is longer than a day"),
        ({"limit_bytes": "0"}, "--limit-bytes must be at least"),
        ({"limit_bytes": "many"}, "--limit-bytes"),
        ({"listen": "9002"}, "is not of the form HOST:PORT"),
        ({"listen": "0.0.0.0:9002"}, "can be reached from other machines"),
        ({"log_level": "loud"}, "is none of debug"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(flags: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**flags)


def test_an_insecure_address_must_be_wanted() -> None:
    assert config(listen="0.0.0.0:9002", insecure="true").listen == "0.0.0.0:9002"
    assert config(listen=[""]).listen == ""


def test_passwords_and_tokens_are_in_no_message() -> None:
    with pytest.raises(ConfigError) as raised:
        config(from_="http://user:hunter2@[broken")
    assert "hunter2" not in raised.value.message
    assert "secret" not in repr(config(anonymize_labels="a", anonymize_salt="secret salt"))


def test_flags_without_effect_are_warned_of_once() -> None:
    values = {"internal.tracing.endpoint": ["http://t"], "internal.tracing.service-name": ["x"]}
    made = make_config({"from": ["http://p"], "to": ["http://s"], "to-token": ["t"], **values})
    assert [warning for warning in made.warnings if "tracing" in warning] == [
        "--internal.tracing.service-name, --internal.tracing.endpoint: traces are not sent; these have no effect"
    ]


def test_an_id_that_is_missing_is_warned_of() -> None:
    def warned(**flags: str) -> bool:
        return any("--id is missing" in warning for warning in config(**flags).warnings)

    assert warned()
    assert not warned(id="c1")
    assert not warned(to="http://s/?id=c1")
    assert not warned(to_auth="http://s/authorize?id=c1", to_upload="http://s/upload")


def test_a_client_certificate_needs_no_ca_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cert"):
        config(tls_cert_file=str(tmp_path / "cert"), tls_private_key_file=str(tmp_path / "key"))


# ---- the file -------------------------------------------------------------------------------------------------------

FILE = b"""\
from: http://p:9090
to: http://s
to-token: 12345
interval: 30s
limit-bytes: 1000
match: ['{a="b,c"}', up]
label: {zone: "a,b", rack: 7}
rename: [A=b]
anonymize-labels: [instance, node]
anonymize-salt: pepper
insecure: true
listen: ""
id: null
"""


def test_a_file_has_what_flags_have() -> None:
    made = make_config(parse_values(FILE, "file"))
    assert made.rules == ('{a="b,c"}', "up")
    assert made.transforms.labels == {"zone": "a,b", "rack": "7"}
    assert made.transforms.renames == {"A": "b"}
    assert made.transforms.anonymize == {"instance", "node"}
    assert (made.token.read(), made.interval, made.limit_bytes, made.listen) == ("12345", 30_000, 1000, "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a: [", "is no YAML"),
        (b"[1]", "is no mapping"),
        (b"frm: x", "there is no flag frm; was from meant?"),
        (b"from: [x]", "the value of from is no text"),
        (b"label: [[x]]", "the value of label is no text"),
        (b"\xff\xfa", "is no YAML"),
    ],
)
def test_a_file_that_is_wrong_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_values(data, "file")


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_values(tmp_path / "none")
    large = tmp_path / "large"
    large.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="more than"):
        read_values(large)


def test_flags_of_the_command_line_are_those_that_were_given() -> None:
    flags = {flag.parameter: () if flag.many else False if flag.switch else None for flag in FLAGS}
    given = flags | {"from": "x", "label": ("a=b", "c=d"), "insecure": True, "listen": ""}
    assert given_flags(given) == {"from": ["x"], "label": ["a=b", "c=d"], "insecure": ["true"], "listen": [""]}


def test_every_flag_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `--([^` ]+)[^|]*\| ([^|]*) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name: default.strip("`") for name, default in rows}
    assert documented == {flag.name: flag.default for flag in FLAGS if not flag.ignored}
