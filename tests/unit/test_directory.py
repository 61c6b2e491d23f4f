"""The data directory says which stack's data it holds, whatever moment its starts were killed at."""

from pathlib import Path

import pytest

from infra.servers.directory import Claim, write_privately
from shared.errors import Invalid


def test_a_directory_keeps_the_data_of_one_stack(tmp_path: Path) -> None:
    claim = Claim(tmp_path, -1)

    claim.dedicate("embedded")
    claim.dedicate("embedded")

    with pytest.raises(Invalid, match="holds the data of the embedded stack, not of the distributed one"):
        claim.dedicate("distributed")


def test_a_start_leaves_the_record_of_an_earlier_one_as_it_is(tmp_path: Path) -> None:
    claim = Claim(tmp_path, -1)
    claim.dedicate("embedded")
    record = tmp_path / "stack"
    written = record.stat()

    claim.dedicate("embedded")

    assert record.stat().st_mtime_ns == written.st_mtime_ns


def test_what_is_for_its_owner_only_is_so_over_the_draft_of_a_killed_process(tmp_path: Path) -> None:
    draft = tmp_path / "secret.new"
    draft.write_text("half")
    draft.chmod(0o644)

    write_privately(tmp_path / "secret", "whole")

    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").read_text() == "whole"
