"""A folder that is not ours is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgauge.errors import NotFound, StorageError
from streamgauge.store.folder import is_data_folder, refuse_foreign, require_data_folder
from streamgauge.store.lock import acquire


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "precious").write_text("mine")
    with pytest.raises(StorageError, match=r"holds other things \(tmp\).*--data"):
        acquire(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


@pytest.mark.parametrize("content", [[], ["lost+found"], [".gitignore", ".snapshots"]])
def test_an_empty_folder_is_taken(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).mkdir()
    acquire(tmp_path).release()
    assert is_data_folder(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "catalog.sqlite",
        "catalog.sqlite.v1.bak",
        "lock",
        "log/00000000000000000001.log",
        "blocks/20241004-1-2-9f31c2aa/samples.parquet",
        "blocks/20241004-1-2-9f31c2aa/aggregates.parquet",
    ],
)
def test_any_trace_of_ours_makes_it_a_data_folder(tmp_path: Path, file: str) -> None:
    (tmp_path / "notes.txt").write_text("left beside")
    assert not is_data_folder(tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    refuse_foreign(tmp_path)
    require_data_folder(tmp_path)


@pytest.mark.parametrize("file", ["lock", "log", "blocks", "log/today.log", "blocks/readme"])
def test_names_alone_prove_nothing(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("another program's")
    assert not is_data_folder(tmp_path)


def test_what_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotFound, match="is a file"):
        require_data_folder(file)
    with pytest.raises(StorageError, match="is a file"):
        refuse_foreign(file)
    with pytest.raises(NotFound, match="there is no folder"):
        require_data_folder(tmp_path / "absent")
