"""Of the `relay:` section what says where live values are published."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from streamgauge.forward.live.target import SUBJECT, TOPIC, LiveTarget, MistTarget, MqttTarget, NatsTarget

_ADDRESS = re.compile(r"(?:([a-z]+)://)?(\[[0-9a-fA-F:.%]+\]|[^\s/:@\[\]]+)(?::(\d{1,5}))?/?")
_PLACES = re.compile(r"\{(?:host|collector|name)\}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int
    tls: bool


def _endpoint(schemes: Mapping[str, tuple[int, bool]]) -> Callable[[object], Endpoint | None]:
    """schemes: the port of each where none is said, and whether it is TLS; the first is meant where none is said."""
    usual = next(iter(schemes))

    def parse(value: object) -> Endpoint | None:
        text = "" if value is None else str(value).strip()
        if not text:
            return None
        found = _ADDRESS.fullmatch(text)
        if found is None or (found[1] or usual) not in schemes or not 0 < int(found[3] or 1) < 65_536:
            raise ValueError(f"expected {' or '.join(f'{scheme}://HOST:PORT' for scheme in schemes)}")
        port, tls = schemes[found[1] or usual]
        return Endpoint(found[2].strip("[]"), int(found[3] or port), tls)

    return parse


def _pattern(allowed: str, separator: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = str(value)
        if not re.fullmatch(allowed, _PLACES.sub("x", text)) or not all(text.split(separator)):
            raise ValueError(f"expected words with {separator} between them, such as pulse{separator}{{host}}")
        return text

    return parse


MqttAddress = Annotated[Endpoint | None, BeforeValidator(_endpoint({"mqtt": (1883, False), "mqtts": (8883, True)}))]
NatsAddress = Annotated[Endpoint | None, BeforeValidator(_endpoint({"nats": (4222, False), "tls": (4222, True)}))]
MistAddress = Annotated[Endpoint | None, BeforeValidator(_endpoint({"tcp": (1445, False), "mist": (1445, False)}))]
Topic = Annotated[str, BeforeValidator(_pattern(r"[^+#{}\x00-\x1f\x7f]{1,1000}", "/"))]
Subject = Annotated[str, BeforeValidator(_pattern(r"[^*>{}\s\x00-\x1f\x7f]{1,1000}", "."))]


class LiveSection(BaseModel):
    """Keys of `relay:` that are about publishing; the other section has them, too."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    mqtt_address: MqttAddress = Field(None, alias="mqtt-address")  # ours, as all but those of Mist
    mqtt_user: str = Field("", alias="mqtt-user")
    mqtt_password: SecretStr = Field(SecretStr(""), alias="mqtt-password")
    mqtt_topic: Topic = Field(TOPIC, alias="mqtt-topic")
    nats_address: NatsAddress = Field(None, alias="nats-address")
    nats_user: str = Field("", alias="nats-user")
    nats_password: SecretStr = Field(SecretStr(""), alias="nats-password")
    nats_token: SecretStr = Field(SecretStr(""), alias="nats-token")
    nats_subject: Subject = Field(SUBJECT, alias="nats-subject")
    mist_address: MistAddress = Field(None, alias="mist-address")
    mist_token: SecretStr | None = Field(None, alias="mist-token")


def live_targets(section: LiveSection | None) -> Iterator[LiveTarget]:
    if section is None:
        return
    if (at := section.mqtt_address) is not None:
        password = section.mqtt_password.get_secret_value()
        yield MqttTarget(at.host, at.port, at.tls, section.mqtt_user, password, section.mqtt_topic)
    if (at := section.nats_address) is not None:
        password, token = section.nats_password.get_secret_value(), section.nats_token.get_secret_value()
        yield NatsTarget(at.host, at.port, at.tls, section.nats_user, password, token, section.nats_subject)
    if (at := section.mist_address) is not None:
        yield MistTarget(at.host, at.port, section.mist_token.get_secret_value() if section.mist_token else "")
