"""`make dist`: whether what was built can be installed by others and works.

    python packaging/check_dist.py FOLDER

The sdist must build the same wheel, byte for byte. The wheel is installed into a new environment from the locked
versions, from wheels alone, as on a machine without a compiler; then the server is started there and asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

SECONDS = 60.0
FILES = ("/", "/ui/console.js", "/ui/console.css", "/-/ready", "/metrics")


def main(folder: Path) -> None:
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="streamgauge-dist-") as name:
        place = Path(name)
        source = unpacked(sdist, place / "sdist")
        again = built_wheel(source, place / "again")
        if (again.name, again.read_bytes()) != (wheel.name, wheel.read_bytes()):
            sys.exit(f"{sdist} builds another wheel than {wheel}")
        program = installed(wheel, source / "requirements" / "run.txt", place / "venv")
        version = wheel.name.split("-")[1]
        if (said := output(place, program, "--version")) != f"streamgauge {version}\n":
            sys.exit(f"{wheel} says that it is {said!r}")
        with serving(program, place) as url:
            answer = output(place, program, "query", "vector(6) * 7", "--server", url, "--format", "csv")
            if not re.fullmatch(r"time,value\n[\d.]+,42\n", answer):
                sys.exit(f"the installed server answers {answer!r}")
            for path in FILES:
                urllib.request.urlopen(url + path, timeout=SECONDS).close()  # raises for an error
    print(f"{wheel} and {sdist}: installed from wheels alone, started and asked")


def unpacked(sdist: Path, place: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (source,) = place.iterdir()
    return source


def built_wheel(source: Path, place: Path) -> Path:
    """By the hatchling of this environment, which is locked; a build front end would fetch another."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = place.iterdir()
    return wheel


def installed(wheel: Path, requirements: Path, place: Path) -> Path:
    """The program in a new environment."""
    venv.create(place, with_pip=True)
    programs = place / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    from_wheels = [*pip, "install", "--only-binary", ":all:"]
    subprocess.run([*from_wheels, "--require-hashes", "-r", requirements], check=True)
    subprocess.run([*from_wheels, "--no-deps", wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    return programs / "streamgauge"


def output(cwd: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, timeout=SECONDS, check=True)
    return done.stdout.decode()


@contextlib.contextmanager
def serving(program: Path, cwd: Path) -> Iterator[str]:
    """The URL of the installed server, which must end well afterwards."""
    command = [program, "serve", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        log = next((line for line in server.stderr if ": ready" in line), None)
        if log is None:
            sys.exit(f"the installed server did not start: exit code {server.wait(SECONDS)}")
        yield "http://" + output(cwd, program, "inspect", "streamgauge-data").partition("http://")[2].split()[0]
        server.terminate()
        if sys.platform != "win32" and server.wait(SECONDS) != 0:
            sys.exit(f"the installed server ended with exit code {server.returncode}")
    finally:
        server.kill()
        server.communicate()


def environment() -> dict[str, str]:
    """Nothing of the project's own may help."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STREAMGAUGE_"))}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
