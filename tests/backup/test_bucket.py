"""Backups in a bucket of a real object store, SeaweedFS, which may fail in the middle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from streamgauge.backup import place as places
from streamgauge.backup.open import open_place
from streamgauge.backup.place import Place, backups
from streamgauge.backup.verify import problems
from streamgauge.errors import BadInput, NotFound, StorageError
from streamgauge.store import failpoints
from streamgauge.testing.object_store import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectStore
from streamgauge.testing.server import eventually, launch_command, run_command

from .conftest import Tally, content, grow

pytestmark = [pytest.mark.peer("weed"), pytest.mark.skipif(sys.platform == "win32", reason="weed is not run there")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with ObjectStore(tmp_path_factory.mktemp("store") / "weed") as store:
        yield store


@pytest.fixture(autouse=True)
def _credentials(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{tmp_path.name}/of this machine"


Open = Callable[[str], Place]


@pytest.fixture
def opened(store: ObjectStore) -> Open:
    return lambda url: open_place(url, store.endpoint, {})


def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """One command, whose exit code must be `code`, and which shows no secret."""
    done = run_command(*map(str, words))
    assert done.returncode == code, done.stderr
    for secret in (SECRET_KEY, "Traceback"):
        assert secret not in done.stdout + done.stderr
    return done


def test_a_backup_and_back(data: Path, tmp_path: Path, url: str, opened: Open) -> None:
    assert "4 new blocks: " in run("backup", url, "--data", data).stdout
    before = content(data)
    grow(data, 3)
    made = run("backup", url, "--data", data)
    assert "2 new blocks: " in made.stdout
    assert "hard links" not in made.stdout
    older, newer = backups(opened(url))
    assert [line.split()[0] for line in run("restore", url, "--list").stdout.splitlines()[1:]] == [older, newer]
    assert run("backup", url, "--verify-only").stdout == f"{url}: 2 backups: good\n"
    run("restore", url, tmp_path / "older", "--backup", older)
    run("restore", url, tmp_path / "newer")
    assert content(tmp_path / "older") == before
    assert content(tmp_path / "newer") == content(data)
    run("compact", data)
    kept = run("backup", url, "--data", data, "--keep", "1", "--no-verify")
    assert "2 backups and " in kept.stdout
    blocks = {path.split("/")[1] for path in opened(url).sizes("blocks")}
    assert blocks == {path.name for path in (data / "blocks").iterdir()}
    run("restore", url, tmp_path / "kept")
    assert content(tmp_path / "kept") == content(data)


def test_files_are_whole_or_not_there(opened: Open, url: str) -> None:
    """A writer that fails in the middle must not leave half an object under its name."""
    place = opened(url)
    large = bytes(3 << 20)

    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            yield large
        raise RuntimeError("the disk that it is read from fails")

    with pytest.raises(RuntimeError):
        place.write("blocks/x/samples.parquet", pieces())
    assert place.sizes("blocks") == {}
    place.write("blocks/x/samples.parquet", [large] * 5)
    assert place.sizes("") == {"blocks/x/samples.parquet": 5 * len(large)}
    assert b"".join(place.read("blocks/x/samples.parquet")) == large * 5
    place.remove_folder("blocks/x")
    place.remove_folder("blocks/x")
    place.remove("blocks/x/none")
    assert place.is_empty()
    with pytest.raises(NotFound, match=r"there is no blocks/x/none in s3://"):
        list(place.read("blocks/x/none"))


def test_a_flipped_bit_is_found_and_never_restored(data: Path, tmp_path: Path, url: str, opened: Open) -> None:
    run("backup", url, "--data", data)
    place = opened(url)
    path = min(path for path in place.sizes("blocks") if path.endswith("samples.parquet"))
    raw = bytearray(b"".join(place.read(path)))
    raw[-100] ^= 1
    place.write(path, [bytes(raw)])
    checked = run("backup", url, "--verify-only", code=1)
    assert f"{path} in {url} is damaged: its checksum is " in checked.stdout
    assert path in run("restore", url, tmp_path / "back", code=3).stderr
    assert not (tmp_path / "back").exists()


def test_a_store_that_is_killed_in_the_middle_is_told_and_the_next_run_goes_on(data: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with ObjectStore(tmp_path / "weed") as store:
        url = f"s3://{BUCKET}/x"
        place = open_place(url, store.endpoint, {})
        command = ["backup", url, "--data", str(data), "--endpoint", store.endpoint]
        process = launch_command(command, {failpoints.VARIABLE: f"backup.after_file=hang:{gate}@4+"})
        try:
            eventually(lambda: len(place.sizes("blocks")) >= 4)
            store.kill()
            gate.unlink()
            _, errors = process.communicate(timeout=100)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 3
        (line,) = errors.splitlines()
        assert f"{url} cannot be" in line
        assert "it cannot be reached" in line
        assert SECRET_KEY not in line
        store.start()
        eventually(lambda: answers(place))
        assert backups(place) == []
        whole = len(place.sizes("blocks"))
        assert 4 <= whole < 12
        done = run(*command)
        assert "4 new blocks: " in done.stdout
        assert list(problems(place, backups(place), Tally())) == []
        run("restore", url, tmp_path / "back", "--endpoint", store.endpoint)
        assert content(tmp_path / "back") == content(data)


def answers(place: Place) -> bool:
    try:
        return bool(b"".join(place.read(places.MARKER)))
    except StorageError:
        return False


@pytest.mark.parametrize(
    ("variables", "url", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-and-secret"}, f"s3://{BUCKET}/x", "it refuses the credentials"),
        ({"AWS_ACCESS_KEY_ID": "unknown"}, f"s3://{BUCKET}/x", "it refuses the credentials"),
        ({}, "s3://no-such-bucket/x", "there is no such bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, f"s3://{BUCKET}/x", "it cannot be reached"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], url: str, said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run("backup", url, "--data", data, code=3)
    (line,) = done.stderr.splitlines()
    assert f"{url} cannot be opened: {said}" in line
    assert "wrong-and-secret" not in line
    assert ACCESS_KEY not in line


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("s3://key:secret@bucket/x", None),
        ("s3://bucket/x?access_key=secret", None),
        ("s3:///x", None),
        (f"s3://{BUCKET}", "127.0.0.1:1"),
        (f"s3://{BUCKET}", "http://key:secret@127.0.0.1:1"),
        (f"s3://{BUCKET}", "http://127.0.0.1:1/path"),
    ],
)
def test_urls_that_are_none(url: str, endpoint: str | None) -> None:
    with pytest.raises(BadInput):
        open_place(url, endpoint, {})
