"""A file that a command writes: there when it is whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from streamgauge.errors import BadInput


@contextmanager
def whole_file(output: str) -> Iterator[BinaryIO]:
    """A draft beside the file `output`, which takes its name when the `with` ends well, and is gone when not.

    Raises BadInput where it cannot be written.
    """
    draft = Path(f"{output}.part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {(error.strerror or str(error)).lower()}") from None
    finally:
        draft.unlink(missing_ok=True)
