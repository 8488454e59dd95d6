"""What is in the wheel and in the sdist. That they can be installed and work is checked by `make dist`."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from streamgauge import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "streamgauge"


def build(source: Path, folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=source, check=True)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def wheel(built: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


def sources() -> set[str]:
    """The files of the package, as the wheel names them."""
    paths = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {f"streamgauge/{path.relative_to(PACKAGE).as_posix()}" for path in paths}


def test_the_wheel_holds_the_package_and_its_licence_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"streamgauge-{__version__}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(wheel.namelist()) == sources() | about
    assert {"streamgauge/py.typed", "streamgauge/serve/ui/index.html"} <= sources()
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(wheel.read(f"streamgauge-{__version__}.dist-info/METADATA").decode())
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    assert b"Tag: py3-none-any" in wheel.read(f"streamgauge-{__version__}.dist-info/WHEEL")


def test_the_sdist_has_what_building_and_installing_take(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "pyproject.toml", "requirements/run.txt"}
    assert needed | {f"src/{name}" for name in sources()} <= names
    assert {"docs/install.md", "packaging/systemd/streamgauge.service", "packaging/Dockerfile"} <= names
    assert [name for name in names if name.startswith(("tests", "bench", ".ci", "streamgauge-data"))] == []


def test_the_sdist_builds_the_same_again(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for again in build(source, tmp_path / "again").iterdir():
        assert again.read_bytes() == (built / again.name).read_bytes(), again.name
