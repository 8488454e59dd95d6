"""What is installed, and from where: the wheel is whole, the pins fit, and no file names a package host."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {name: (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8") for name in ("run", "build", "dev")}


def pinned(text: str) -> dict[str, set[str]]:
    """Versions by name: more than one where they differ by platform or Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower()


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    for requirement in PROJECT["project"]["dependencies"]:
        for name in ("run", "dev"):
            versions = pinned(PINS[name]).get(_name(requirement))
            assert versions, f"{requirement} is not in requirements/{name}.txt: make lock"
            for version in versions:
                assert _within(version, requirement), f"{version} is not {requirement}: make lock"
    for requirement in PROJECT["dependency-groups"]["dev"]:
        assert _name(requirement) in pinned(PINS["dev"]), f"{requirement}: make lock"
    for requirement in PROJECT["dependency-groups"]["build"]:
        assert _name(requirement) in pinned(PINS["build"]), f"{requirement}: make lock"


def _within(version: str, requirement: str) -> bool:
    bounds = re.findall(r"(>=|<)([\d.]+)", requirement)
    return all((_numbers(version) >= _numbers(bound)) == (relation == ">=") for relation, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


@pytest.mark.parametrize("name", ["run", "build"])
def test_what_runs_and_builds_is_pinned_alike_for_tests(name: str) -> None:
    assert pinned(PINS[name]).items() <= pinned(PINS["dev"]).items()


@pytest.mark.parametrize("name", PINS)
def test_every_pin_has_a_hash(name: str) -> None:
    for entry in re.split(r"\n(?=\S)", PINS[name].strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def _files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a clone of the repository")
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_a_package_host() -> None:
    host = re.compile(rb"pypi\.(python\.)?" + rb"org|python" + rb"hosted|--(extra-)?index-" + rb"url|find-" + rb"links")
    for path in _files():
        if path != Path(__file__).resolve():
            found = host.search(path.read_bytes().replace(b"--no-emit-index-url", b""))
            assert found is None, f"{path} names {found[0] if found else b''!r}"


def test_the_package_has_all_that_it_serves() -> None:
    """hatchling packs what git does not ignore under src/streamgauge: so everything there must be known to git."""
    known = set(_files())
    package = ROOT / "src" / "streamgauge"
    assert package / "py.typed" in known
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path in known, f"{path} is not in git, and would be missing from an installation"
    assert {path.suffix for path in (package / "serve" / "ui").iterdir()} == {".js", ".css", ".html"}
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/streamgauge"]
