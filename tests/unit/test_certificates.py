"""The certificates of a stack's own are made once, and anew when they would not do any more."""

from pathlib import Path

import pytest

from infra.servers.certificates import authority, certificate
from infra.servers.openssl import openssl
from shared.errors import Invalid
from tests.certificates import agree

HOSTS = ("127.0.0.1", "localhost")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made_for_days(folder: Path, days: int) -> None:
    """Put a server's certificate in the folder that the authority there has signed for so long."""
    key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    signing = str(folder / "authority.key.pem")
    request = ("req", "-x509", "-new", "-key", "/dev/stdin", "-days", str(days), "-subj", "/CN=nats")
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE")
    (folder / "nats.pem").write_bytes(key + openssl(*request, "-CA", signing, "-CAkey", signing, *names, content=key))


def test_a_client_that_trusts_the_authority_takes_a_server_at_its_hosts_only(tmp_path: Path) -> None:
    shown, trusted = certificate(tmp_path, "nats", HOSTS), authority(tmp_path)

    assert agree(trusted, shown, "127.0.0.1")
    assert agree(trusted, shown, "localhost")
    assert not agree(trusted, shown, "127.0.0.2")
    assert not agree(trusted, shown, "nats-2")


def test_another_authority_vouches_for_nobody_here(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()

    assert not agree(authority(tmp_path / "theirs"), certificate(tmp_path / "ours", "nats", HOSTS), "localhost")


def test_the_second_time_changes_nothing(tmp_path: Path) -> None:
    certificate(tmp_path, "nats", HOSTS)
    files = contents(tmp_path)

    certificate(tmp_path, "nats", HOSTS)

    assert contents(tmp_path) == files


def test_only_the_owner_reads_them_and_the_authority_is_trusted_without_its_key(tmp_path: Path) -> None:
    certificate(tmp_path, "nats", HOSTS)

    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    assert b"PRIVATE KEY" not in (tmp_path / "authority.pem").read_bytes()


def test_one_for_other_hosts_is_made_anew(tmp_path: Path) -> None:
    certificate(tmp_path, "nats", HOSTS)

    assert agree(authority(tmp_path), certificate(tmp_path, "nats", ("nats-1",)), "nats-1")


@pytest.mark.parametrize(("days", "stays"), [(400, True), (300, False)])
def test_one_that_is_about_to_run_out_is_made_anew(tmp_path: Path, days: int, stays: bool) -> None:
    authority(tmp_path)
    made_for_days(tmp_path, days)
    before = (tmp_path / "nats.pem").read_bytes()

    certificate(tmp_path, "nats", HOSTS)

    assert ((tmp_path / "nats.pem").read_bytes() == before) is stays


@pytest.mark.parametrize("lost", ["authority.key.pem", "authority.pem", "nats.pem"])
@pytest.mark.parametrize("left", [None, "half of it"])
def test_what_a_killed_start_left_unfinished_is_finished(tmp_path: Path, lost: str, left: str | None) -> None:
    certificate(tmp_path, "nats", HOSTS)
    if left is None:
        (tmp_path / lost).unlink()
    else:
        (tmp_path / lost).write_text(left)

    shown = certificate(tmp_path, "nats", HOSTS)

    assert agree(authority(tmp_path), shown, "127.0.0.1")


def test_without_openssl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Invalid, match=r"openssl is not on PATH: .*apt install openssl"):
        authority(tmp_path)
