"""Each service and each server is handed its own secrets, and those of nobody else."""

import json
from pathlib import Path

import pytest

from infra.given import given_settings
from infra.secrets import hand_out
from infra.setup import ROLES
from shared.errors import Invalid
from shared.settings import Settings
from tests.certificates import agree

ADDRESSES = Settings(
    postgres_url="postgresql://postgres:5432/rat",
    nats_urls=["tls://nats-1:4222", "tls://nats-2:4222", "tls://nats-3:4222"],
    s3_endpoint="http://minio:9000",
    lakehouse="nessie",
    nessie_url="http://nessie:19120",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was handed out, and is not changed any more."""
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def everything(folder: Path) -> Settings:
    return hand_out(folder, ADDRESSES)


def given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RAT_SECRETS", str(folder))
    return given_settings()


@pytest.mark.parametrize("service", ROLES)
def test_a_service_is_given_what_is_its_own(
    service: str, folder: Path, everything: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = given(folder / service, monkeypatch)

    assert set(settings.postgres_passwords) == {service}
    assert set(settings.nats_passwords) == {service}
    assert set(settings.s3_keys) <= {service}
    assert set(settings.nessie_tokens) <= ({"runner", "merge"} if service == "runner" else {service})
    assert settings.postgres_password(service) == everything.postgres_password(service)
    assert settings.nats_password(service) == everything.nats_password(service)


def test_setup_is_given_everything(folder: Path, everything: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(folder / "setup", monkeypatch)

    assert settings.postgres_passwords == everything.postgres_passwords
    assert settings.nats_passwords == everything.nats_passwords
    assert settings.s3_keys == everything.s3_keys
    assert settings.nessie_tokens == everything.nessie_tokens


def test_what_sees_to_the_streams_is_given_the_password_for_nats_only(
    folder: Path, everything: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = given(folder / "streams", monkeypatch)

    assert settings.nats_passwords == {"infra": everything.nats_passwords["infra"]}
    assert {*settings.postgres_passwords, *settings.s3_keys, *settings.nessie_tokens} == set()


def test_no_secret_of_another_is_in_a_folder(folder: Path, everything: Settings) -> None:
    passwords = {role: secret.get_secret_value() for role, secret in everything.postgres_passwords.items()}
    for role, password in passwords.items():
        holders = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if holds(path, password)}
        assert holders == {"credentials", "setup", "postgres" if role == "infra" else role}


def test_the_second_time_changes_nothing_but_signatures(tmp_path: Path) -> None:
    first = hand_out(tmp_path, ADDRESSES)
    files = contents(tmp_path)

    second = hand_out(tmp_path, ADDRESSES)

    assert second.model_copy(update={"nessie_tokens": first.nessie_tokens}) == first
    changed = {name for name, content in contents(tmp_path).items() if files[name] != content}
    assert {Path(name).name for name in changed} <= {"rat_nessie_tokens"}


@pytest.mark.usefixtures("everything")
def test_only_the_owner_can_read_what_is_handed_out(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.usefixtures("everything")
def test_the_nodes_of_nats_know_each_other(folder: Path) -> None:
    node = json.loads((folder / "nats-2" / "nats-server.conf").read_text())

    assert node["server_name"] == "nats-2"
    assert [route.rpartition("@")[2] for route in node["cluster"]["routes"]] == ["nats-1:6222", "nats-3:6222"]
    assert node["jetstream"]["sync_interval"] == "always"


@pytest.mark.usefixtures("everything")
def test_a_node_of_nats_has_a_certificate_of_its_own_and_advertises_what_is_in_it(folder: Path) -> None:
    shown = (folder / "nats-2" / "certificate.pem").read_text()
    node = json.loads((folder / "nats-2" / "nats-server.conf").read_text())

    assert {path.relative_to(folder).parts[0] for path in folder.rglob("*") if holds(path, shown)} == (
        {"credentials", "nats-2"}
    )
    assert node["client_advertise"] == "nats-2:4222"
    for tls in (node["tls"], node["cluster"]["tls"]):
        assert {tls["cert_file"], tls["key_file"]} == {"/run/rat/certificate.pem"}
    assert node["cluster"]["tls"]["verify"]


@pytest.mark.usefixtures("everything")
def test_a_node_of_nats_is_known_by_its_host_and_through_a_port_that_leads_to_it(folder: Path) -> None:
    trusted, shown = folder / "setup" / "nats-authority.pem", folder / "nats-2" / "certificate.pem"

    assert all(agree(trusted, shown, host) for host in ("nats-2", "localhost", "127.0.0.1"))
    assert not agree(trusted, shown, "nats-1")


@pytest.mark.usefixtures("everything")
def test_all_who_use_nats_are_told_whom_to_trust_and_nobody_has_the_key_of_the_authority(folder: Path) -> None:
    trusted = (folder / "setup" / "nats-authority.pem").read_text()
    key = (folder / "credentials" / "certificates" / "authority.key.pem").read_text().partition("-----END")[0]

    for name in (*ROLES, "setup", "streams", "minio", "nats-1", "nats-2", "nats-3"):
        assert (folder / name / "nats-authority.pem").read_text() == trusted
    assert {path.relative_to(folder).parts[0] for path in folder.rglob("*") if holds(path, key)} == {"credentials"}


@pytest.mark.usefixtures("everything")
def test_the_store_tells_nats_over_tls(folder: Path) -> None:
    variables = (folder / "minio" / "environment").read_text().splitlines()

    for target in ("DIRECT", "QUEUED"):
        assert f"MINIO_NOTIFY_NATS_TLS_{target}=on" in variables
        assert f"MINIO_NOTIFY_NATS_CERT_AUTHORITY_{target}=/run/rat/nats-authority.pem" in variables


@pytest.mark.usefixtures("everything")
def test_a_variable_wins_over_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAT_NATS_PASSWORDS", '{"query": "given"}')

    assert given(folder / "query", monkeypatch).nats_password("query") == "given"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match=r"RAT_SECRETS names .*, which is no folder"):
        given(tmp_path / "nowhere", monkeypatch)


def holds(path: Path, secret: str) -> bool:
    return path.is_file() and secret in path.read_text()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
