"""What the documentation says can be typed, and what it refers to is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import duckdb
import pytest
import yaml

import streamgauge
from streamgauge.config import parse_config
from streamgauge.store import block_format, segment
from streamgauge.store.catalog import UPGRADES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEFAULT_URL = "http://127.0.0.1:4318"
FOREVER = 60


def blocks(language: str, page: str = README) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


# ---- the tour -------------------------------------------------------------------------------------------------------


class Tour:
    """Types commands in a folder where a server runs, as the README's reader does."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGAUGE_")}
        self.environment |= {"PYTHONPATH": str(Path(streamgauge.__file__).parents[1]), "PYTHONUTF8": "1"}
        serve = [sys.executable, "-m", "streamgauge", "serve", "--listen", "127.0.0.1:0"]
        self.server = subprocess.Popen(
            serve, cwd=cwd, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.server.stdout is not None
        assert self.server.stderr is not None
        greeting = b"".join(self.server.stdout.readline() for _ in range(3)).decode()
        self.url = re.findall(r"http://[\d.]+:\d+", greeting)[0]
        while b"ready" not in (line := self.server.stderr.readline()):
            assert line, "the server did not start"
        while self.type("streamgauge query 'rate(node_cpu_seconds_total[30s])' --format csv").count("\n") < 2:
            assert self.server.poll() is None  # the first two samples of this host are on their way

    def type(self, line: str) -> str:
        """What a command prints. It must succeed."""
        words = shlex.split(line.replace(DEFAULT_URL, self.url))
        if words[0] == "streamgauge":
            words[:1] = [sys.executable, "-m", "streamgauge"]
        if "compact" in words:
            self.stop()
        done = subprocess.run(
            words, cwd=self.cwd, env=self.environment, capture_output=True, timeout=FOREVER, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr.decode()}"
        return done.stdout.decode()

    def stop(self) -> None:
        if self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
        self.server.communicate(timeout=FOREVER)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    tour = Tour(tmp_path_factory.mktemp("tour"))
    yield tour
    tour.stop()


def commands() -> Iterator[tuple[str, str]]:
    """Each command of the tour with the output that the README shows, "" where it shows none."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield line, output


def shape(text: str) -> str:
    """A text without what differs from run to run: numbers, and how far columns are apart."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*", "0", text)).strip()


@pytest.mark.timeout(600)  # thirty commands, each an interpreter of its own
@pytest.mark.skipif(sys.platform != "linux", reason="the tour shows a Linux host's metrics")
def test_the_tour_can_be_typed(tour: Tour) -> None:
    typed = 0
    for line, expected in commands():
        if line.startswith("curl") and shutil.which("curl") is None:
            continue
        output = tour.type(line)
        assert output
        assert not expected or shape(output) == shape(expected), line
        typed += 1
    assert typed >= 6
    samples = list((tour.cwd / "streamgauge-data").glob("blocks/*/samples.parquet"))
    assert samples, "the tour has compacted the folder"
    for query in blocks("sql"):
        assert duckdb.sql(query.replace("streamgauge-data", str(tour.cwd / "streamgauge-data"))).fetchall()
    for program in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tour.cwd, capture_output=True, timeout=FOREVER, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout


def test_snippets_of_configuration_are_right() -> None:
    prometheus, grafana = blocks("yaml")
    parse_config(prometheus, "prometheus.yml", {})
    (write,), (read,) = (yaml.safe_load(prometheus)[f"remote_{way}"] for way in ("write", "read"))
    assert (write["url"], read["url"]) == (f"{DEFAULT_URL}/api/v1/write", f"{DEFAULT_URL}/api/v1/read")
    (source,) = yaml.safe_load(grafana)["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", DEFAULT_URL)
    for snippet in blocks("yaml", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")):
        parse_config(snippet, "example.yml", {})
    for snippet in blocks("json", (ROOT / "docs" / "http.md").read_text(encoding="utf-8")):
        json.loads(snippet)


# ---- what pages refer to --------------------------------------------------------------------------------------------


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert PAGES
    assert not broken, "\n".join(broken)


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {
        (index.parent / target).resolve() for target in re.findall(r"\]\(([^)]+)\)", index.read_text(encoding="utf-8"))
    }
    assert listed >= set(PAGES) - {index}


def test_the_design_names_modules_that_exist() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`((?:\w+/)+\w+\.py)`", text))
    assert len(modules) > 15
    for module in modules:
        assert (ROOT / "src" / "streamgauge" / module).is_file(), module


def test_the_table_of_upgrades_has_the_formats_in_force() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    formats = {"log": segment.FORMAT_VERSION, "blocks": block_format.FORMAT_VERSION, "catalog": 1 + len(UPGRADES)}
    for files, version in formats.items():
        assert re.search(rf"^\| {files} \| {version} \|", text, re.MULTILINE), files


def test_the_screenshot_is_small() -> None:
    assert 0 < (ROOT / "docs" / "screenshot.png").stat().st_size < 200_000


# ---- dependencies ---------------------------------------------------------------------------------------------------


def _tables() -> dict[str, str]:
    """The licence that docs/dependencies.md gives for each package."""
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {row[1]: row[2] for row in rows if not row[1].startswith(("-", "package"))}


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower()


def test_every_dependency_is_explained_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [
        *project["project"]["dependencies"],
        *(name for group in project["dependency-groups"].values() for name in group),
    ]
    assert set(_tables()) == {_name(requirement) for requirement in declared}


@pytest.mark.parametrize(("package", "licence"), sorted(_tables().items()))
def test_licences_are_those_of_the_installed_packages(package: str, licence: str) -> None:
    try:
        about = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    known = about.get("License-Expression") or " ".join(
        [about.get("License") or "", *(about.get_all("Classifier") or [])]
    )
    if "License" in known or re.search(r"\b(MIT|BSD|Apache)\b", known):
        for word in re.findall(r"MIT|BSD|Apache|MPL", licence):
            assert word in known
