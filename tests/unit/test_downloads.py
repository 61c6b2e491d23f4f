"""Programs that no wheel brings are made once, and are what they were when they were made."""

import os
from pathlib import Path

import psutil
import pytest

from infra.servers.downloads import kept_file, needed_program, run_to_its_end
from shared.errors import Invalid, Unavailable
from tests.waiting import eventually


def test_a_file_is_made_once_and_again_when_it_is_not_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "program").write_bytes(b"content")

    path = kept_file("program", "1", make)
    assert kept_file("program", "1", make) == path
    assert len(made) == 1

    path.write_bytes(b"spoiled")
    assert kept_file("program", "1", make).read_bytes() == b"content"
    assert len(made) == 2


def test_a_file_that_is_not_what_its_hash_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(Invalid, match="it should be 0000"):
        kept_file("program", "1", lambda folder: (folder / "program").touch(), sha256="0000")
    assert not list(tmp_path.rglob("program"))


def test_a_program_that_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)

    with pytest.raises(Invalid, match="building it needs 'go', which is not on PATH: install Go"):
        needed_program("go", purpose="building it", install="install Go")


async def test_what_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    hanging = "sleep 600 & echo $! > pid; echo half of it; wait"

    with pytest.raises(Unavailable, match=r"fetching it was not done after 2 s: sh -c 'sleep 600 .*\nhalf of it$"):
        run_to_its_end(
            ["sh", "-c", hanging], what="fetching it", folder=tmp_path, environment=os.environ, within_seconds=2
        )

    started = int((tmp_path / "pid").read_text())
    await eventually(lambda: not _is_running(started))


def test_what_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    failing = "echo no network >&2; exit 3"

    with pytest.raises(Unavailable, match=r"fetching it failed with exit code 3: sh -c '.*'\nno network$"):
        run_to_its_end(
            ["sh", "-c", failing], what="fetching it", folder=tmp_path, environment=os.environ, within_seconds=60
        )


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
