"""A real object store that speaks S3, SeaweedFS, on loopback and free ports."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pyarrow.fs

from streamgauge.testing.programs import required
from streamgauge.testing.server import eventually

ACCESS_KEY, SECRET_KEY = "an-access-key", "a-secret-that-nobody-may-see"
BUCKET = "backups"
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


class ObjectStore:
    """`weed server` with one bucket, in `folder`. Stop it, or use it in a `with`; it can be started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "backup", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
        (folder / "s3.json").write_text(json.dumps({"identities": [{**identity, "actions": actions}]}))
        (folder / "data").mkdir()
        names = (*_PORTS, "s3.port", "s3.port.grpc")
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._make_bucket()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def environment(self) -> Mapping[str, str]:
        """By which a client is let in, and asks nobody else for credentials."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """With what it held before. Returns when it answers."""
        command = [required("weed"), "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-s3", f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-volume.max=20", "-master.volumeSizeLimitMB=64"]
        command += [f"-{name}={port}" for name, port in self._ports.items()]
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/status", timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False
        return True

    def _make_bucket(self) -> None:
        store = pyarrow.fs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region="us-east-1",
            scheme="http",
            endpoint_override=self.endpoint.removeprefix("http://"),
            allow_bucket_creation=True,
        )

        def made() -> bool:  # it answers a little before all of its parts know each other
            with contextlib.suppress(OSError):
                store.create_dir(BUCKET)
                with store.open_output_stream(f"{BUCKET}/probe") as stream:
                    stream.write(b"probe")
                store.delete_file(f"{BUCKET}/probe")
                return True
            return False

        eventually(made)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
