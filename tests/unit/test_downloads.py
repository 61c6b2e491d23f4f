"""Programs that no wheel brings are made once, and are what they were when they were made."""

import os
from pathlib import Path

import pytest

from infra.servers.downloads import kept_file, needed_program
from shared.errors import Invalid


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
