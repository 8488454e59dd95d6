"""Backups in a bucket of an object store that speaks S3. Credentials come from where AWS' own tools look for them, and
go nowhere else."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.fs

from streamgauge.errors import BadInput, NotFound, StorageError

SCHEME = "s3://"
PIECE = 8 << 20
"""Of a file that is read: each is a request."""
ATTEMPTS = 5
CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 60.0

_CODE = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?")
_NO_CREDENTIALS = "look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or at AWS_PROFILE and ~/.aws/credentials"
_WORDS = {
    "ACCESS_DENIED": f"it refuses the credentials; {_NO_CREDENTIALS}",
    "INVALID_ACCESS_KEY_ID": f"it does not know the access key; {_NO_CREDENTIALS}",
    "SIGNATURE_DOES_NOT_MATCH": f"the secret key is not that of the access key; {_NO_CREDENTIALS}",
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or look at its name and at --endpoint",
    "NETWORK_CONNECTION": "it cannot be reached; look at --endpoint and the network",
    "SLOW_DOWN": "it asks for fewer requests; try again later",
}
"""What to do about an error, by the name that the AWS SDK gives it."""


class BucketPlace:
    """Implements `place.Place` in `s3://bucket/prefix`.

    `endpoint`: the URL of the store, None for Amazon's. Raises BadInput, and StorageError
    when the bucket cannot be used.
    """

    def __init__(self, url: str, endpoint: str | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if "@" in parts.netloc:
            raise BadInput("a bucket's URL holds no credentials: they come from the environment or ~/.aws/credentials")
        if not parts.netloc or parts.query or parts.fragment:
            raise BadInput(f'"{url}" is not the URL of a bucket; write {SCHEME}BUCKET or {SCHEME}BUCKET/PREFIX')
        self._bucket = parts.netloc
        self._root = "/".join(filter(None, (parts.netloc, parts.path.strip("/"))))
        scheme, host = _endpoint(endpoint)
        with self._translated("opened"):
            self._store = pyarrow.fs.S3FileSystem(  # type: ignore[call-arg]
                scheme=scheme,
                endpoint_override=host,
                retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
                connect_timeout=CONNECT_SECONDS,
                request_timeout=REQUEST_SECONDS,
                allow_delayed_open=True,  # a small file is then one request
            )
            found = self._store.get_file_info(self._bucket)
        if found.type == pyarrow.fs.FileType.NotFound:
            raise StorageError(f"{self.name} cannot be opened: {_WORDS['NO_SUCH_BUCKET']}")

    @property
    def name(self) -> str:
        return SCHEME + self._root

    def alone(self) -> AbstractContextManager[None]:
        """A bucket has no locks."""
        return nullcontext()

    def is_empty(self) -> bool:
        return not self.sizes("")

    def sizes(self, under: str) -> dict[str, int]:
        folder = "/".join(filter(None, (self._root, under)))
        with self._translated("listed"):
            selector = pyarrow.fs.FileSelector(folder, allow_not_found=True, recursive=True)
            found = self._store.get_file_info(selector)
        return {info.path[len(self._root) + 1 :]: info.size for info in found if info.is_file}

    def read(self, path: str) -> Iterator[bytes]:
        try:
            with self._translated(f"read ({path})"), self._store.open_input_stream(self._path(path)) as stream:
                while piece := stream.read(PIECE):
                    yield piece
        except FileNotFoundError:
            raise NotFound(f"there is no {path} in {self.name}") from None

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        with self._translated(f"written ({path})"):
            stream = self._store.open_output_stream(self._path(path))
            try:
                for piece in pieces:
                    stream.write(piece)
                stream.close()
            except BaseException:
                self._abandon(stream, path)
                raise

    def _abandon(self, stream: pa.NativeFile, path: str) -> None:
        """To close it is to finish the object with what there is, and it may not be left open."""
        with suppress(OSError, pa.ArrowException):
            stream.close()
        with suppress(StorageError):
            self.remove(path)

    def link(self, path: str, source: Path) -> bool:
        return False

    def remove(self, path: str) -> None:
        with self._translated(f"changed ({path})"), suppress(FileNotFoundError):
            self._store.delete_file(self._path(path))

    def remove_folder(self, path: str) -> None:
        with self._translated(f"changed ({path})"), suppress(FileNotFoundError):
            self._store.delete_dir(self._path(path))

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        """What the SDK says, as one sentence without the request in it. FileNotFoundError passes."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self.name} cannot be {done}: {_meaning(str(error))}") from None


def _endpoint(url: str | None) -> tuple[Literal["http", "https"], str | None]:
    """Scheme and host:port. Raises BadInput."""
    if url is None:
        return "https", None
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or "@" in parts.netloc:
        raise BadInput("the endpoint of a bucket is a URL without path or credentials, such as http://127.0.0.1:8333")
    return "http" if parts.scheme == "http" else "https", parts.netloc


def _meaning(said: str) -> str:
    match = _CODE.search(said)
    if match is None:
        return "the store answered something unexpected"
    code, status = match.groups()
    if code in _WORDS:
        return _WORDS[code]
    if status == "403":
        return _WORDS["ACCESS_DENIED"]
    return f"the store answered {code}" + (f" (HTTP status {status})" if status else "")
