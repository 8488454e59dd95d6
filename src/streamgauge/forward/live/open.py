"""A publisher for each destination of live values, by its kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping

from streamgauge.clock import Clock
from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live.mist import MistOutlet
from streamgauge.forward.live.mqtt import MqttOutlet
from streamgauge.forward.live.nats import NatsOutlet
from streamgauge.forward.live.publisher import LivePublisher
from streamgauge.forward.live.target import KINDS, LiveTarget, MistTarget, MqttTarget, NatsTarget, Outlet

_PACKAGES: Mapping[type, tuple[str, str]] = {NatsTarget: ("nats", "nats-py")}


def check_packages(targets: Iterable[LiveTarget]) -> None:
    """Raises DeliveryFailed for a destination whose client is not installed."""
    for target in targets:
        module, package = _PACKAGES.get(type(target), ("", ""))
        if module and importlib.util.find_spec(module) is None:
            kind = KINDS[type(target)]
            raise DeliveryFailed(f"relay.{kind}-address needs the package {package}: pip install 'streamgauge[{kind}]'")


def open_publisher(target: LiveTarget, clock: Clock) -> LivePublisher:
    return LivePublisher(KINDS[type(target)], _outlet(target), clock)


def _outlet(target: LiveTarget) -> Outlet:
    match target:
        case MqttTarget():
            return MqttOutlet(target)
        case NatsTarget():
            return NatsOutlet(target)
        case MistTarget():
            return MistOutlet(target)
