"""The flags of `streamgauge federate`, in one table. Each is also a key of its configuration file.

Names and defaults are those of telemeter-client, so that a command line for it works here as it is. docs/federate.md
has the same table; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Where samples come from"
CHANGES = "What leaves this machine, and how"
TARGET = "Where they go"
OPERATION = "Operation"


@dataclass(frozen=True, slots=True)
class Flag:
    """default: as it is written. many: may be given again. commas: a value may hold several, as in CSV. switch: has no
    value. ignored: accepted, and of no use here."""

    name: str
    metavar: str
    default: str
    group: str
    help: str
    many: bool = False
    commas: bool = False
    switch: bool = False
    ignored: bool = False
    short: str = ""

    @property
    def parameter(self) -> str:
        """The name as an identifier."""
        return self.name.replace("-", "_").replace(".", "_")


FLAGS = (
    Flag("from", "URL", "", SOURCE, "Prometheus to take samples from, such as http://127.0.0.1:9090."),
    Flag("from-token", "TOKEN", "", SOURCE, "Bearer token for it."),
    Flag("from-token-file", "FILE", "", SOURCE, "The same, in a file."),
    Flag("from-ca-file", "FILE", "", SOURCE, "CA certificates that are trusted for it, beside those of the system."),
    Flag("tls-cert-file", "FILE", "", SOURCE, "Client certificate for it."),
    Flag("tls-private-key-file", "FILE", "", SOURCE, "Key of the client certificate."),
    Flag("match", "SELECTOR", '{__name__="up"}', SOURCE, "Series to take. The first replaces the default.", many=True),
    Flag("match-file", "FILE", "", SOURCE, "Further selectors, one a line."),
    Flag("label", "NAME=VALUE", "", CHANGES, "Label to set on each metric.", many=True, commas=True),
    Flag("rename", "OLD=NEW", "ALERTS=alerts", CHANGES, "Rename a metric.", many=True, commas=True),
    Flag("anonymize-labels", "NAME", "", CHANGES, "Labels whose values are hashed.", many=True, commas=True),
    Flag("anonymize-salt", "TEXT", "", CHANGES, "Secret that is hashed with them: without it values can be guessed."),
    Flag("anonymize-salt-file", "FILE", "", CHANGES, "The same, in a file."),
    Flag("to", "URL", "", TARGET, "Server to push to; <URL>/authorize and <URL>/upload are used."),
    Flag("to-upload", "URL", "", TARGET, "Where to push to, if it is another place than --to gives."),
    Flag("to-auth", "URL", "", TARGET, "Where to get access tokens, if it is another place than --to gives."),
    Flag("to-token", "TOKEN", "", TARGET, "Token that is exchanged for an access token."),
    Flag("to-token-file", "FILE", "", TARGET, "The same, in a file."),
    Flag("to-ca-file", "FILE", "", TARGET, "CA certificates that are trusted for it, beside those of the system."),
    Flag("to-cert-file", "FILE", "", TARGET, "Client certificate for it."),
    Flag("to-key-file", "FILE", "", TARGET, "Key of that certificate."),
    Flag("id", "TEXT", "", TARGET, "Identifier of this cluster, which --to is told."),
    Flag("interval", "D", "4m30s", OPERATION, "Time from one scrape to the next."),
    Flag("limit-bytes", "BYTES", "204800", OPERATION, "Most bytes of a scrape, and of what is pushed at once."),
    Flag("buffer", "DIR", "", OPERATION, "Where to keep what is not pushed yet; 0 keeps the latest in memory only."),
    Flag("buffer-bytes", "BYTES", "256MB", OPERATION, "Most bytes in there; beyond them the oldest goes."),
    Flag("listen", "HOST:PORT", "localhost:9002", OPERATION, "Where health and metrics are served; empty for nowhere."),
    Flag("insecure", "", "", OPERATION, "Let --listen be an address that other machines reach.", switch=True),
    Flag("verbose", "", "", OPERATION, "Log each step.", switch=True, short="v"),
    Flag("log-level", "LEVEL", "info", OPERATION, "Log lines from this level on: debug, info, warn, error."),
    Flag("internal.tracing.service-name", "TEXT", "", OPERATION, "Has no effect.", ignored=True),
    Flag("internal.tracing.endpoint", "URL", "", OPERATION, "Has no effect.", ignored=True),
    Flag("internal.tracing.sampling-fraction", "NUMBER", "", OPERATION, "Has no effect.", ignored=True),
    Flag("internal.tracing.endpoint-type", "TYPE", "", OPERATION, "Has no effect.", ignored=True),
)
BY_NAME = {flag.name: flag for flag in FLAGS}
