"""A destination by the words that name it on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from streamgauge.backup.folder import FolderPlace
from streamgauge.backup.place import Place
from streamgauge.errors import BadInput

_BUCKET = "s3://"
_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def open_place(text: str, endpoint: str | None, environment: Mapping[str, str]) -> Place:
    """A folder, or a bucket where `text` is an s3:// URL. Raises BadInput and StorageError.

    `endpoint`: of the bucket's store; None for what the environment says, or else Amazon's.
    """
    if text.startswith(_BUCKET):
        # The SDK takes the variable too, but not the http of it.
        endpoint = endpoint or next((environment[name] for name in _VARIABLES if environment.get(name)), None)
        # Imported only here: it loads the AWS SDK, which takes a while.
        from streamgauge.backup.bucket import BucketPlace

        return BucketPlace(text, endpoint)
    if "://" in text:
        raise BadInput(f'"{text}" is neither a folder nor a bucket; write a path, or {_BUCKET}BUCKET/PREFIX')
    if endpoint is not None:
        raise BadInput(f"--endpoint is for {_BUCKET} URLs")
    return FolderPlace(Path(text))
