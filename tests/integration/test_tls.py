"""With certificates, every client encrypts what it says and looks to whom, on the whole way of the data."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import duckdb
import httpx
import nats.errors
import pyarrow as pa
import pytest

from contracts.names import Qualified
from contracts.namespaces import ListNamespaces, Namespaces
from infra.servers.permissions import permissions
from infra.servers.ports import reserved_ports
from infra.servers.programs import program
from infra.setup import set_up_nats, set_up_object_store, set_up_postgres
from infra.stacks.stack import Stack
from services.gateway.uplink import uplink
from shared.bus import connect
from shared.database import database
from shared.duckdb_engine import connect as connect_duckdb
from shared.errors import Invalid, Unavailable
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.connect import lakehouse
from shared.object_store import object_store
from shared.settings import Settings
from tests.certificates import Certificate, certificate
from tests.waiting import eventually


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate that the clients are told to trust."""
    return certificate(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Another authority: a server with the first one's certificate is none of its."""
    return certificate(tmp_path_factory.mktemp("unknown"))


def test_a_file_without_certificates_is_named(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")

    with pytest.raises(Invalid, match=r"ca\.pem' is no file of certificates in PEM"):
        connect(stack.settings.model_copy(update={"nats_ca_file": str(tmp_path / "ca.pem")}), "catalog")


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: tuple[str, int]) -> None:
    """Give what comes to the server at this address, and what it says back."""
    server_reader, server_writer = await asyncio.open_connection(*address)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            while piece := await source.read(65536):
                target.write(piece)
                await target.drain()
        target.close()

    await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))


# NATS


@pytest.fixture(scope="module")
def encrypted_nats(stack: Stack, known: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A NATS server that talks to nobody in the clear."""
    folder = tmp_path_factory.mktemp("nats")
    with reserved_ports(folder, ["nats"]) as ports:
        yield from _encrypted_nats(stack, known, folder, ports["nats"])


def _encrypted_nats(stack: Stack, known: Certificate, folder: Path, port: int) -> Iterator[Settings]:
    users = [
        {"user": name, "password": password.get_secret_value(), "permissions": permissions()[name].configuration()}
        for name, password in stack.settings.nats_passwords.items()
    ]
    config = {
        "listen": f"127.0.0.1:{port}",
        "jetstream": {"store_dir": str(folder)},
        # Two seconds by default, which a busy machine may need more of.
        "tls": {"cert_file": str(known.certificate), "key_file": str(known.key), "timeout": 10},
        "authorization": {"users": users},
    }
    path = folder / "nats.conf"
    path.write_text(json.dumps(config))
    with (folder / "nats.log").open("wb") as log:
        server = subprocess.Popen([program("nats-server"), "--config", str(path)], stderr=log)
    try:
        update = {"nats_urls": [f"tls://127.0.0.1:{port}"], "nats_ca_file": str(known.authority), "nats_replicas": 1}
        yield stack.settings.model_copy(update=update)
    finally:
        server.terminate()
        server.wait()


async def test_services_speak_over_an_encrypted_bus(encrypted_nats: Settings) -> None:
    async def list_namespaces(query: ListNamespaces) -> Namespaces:
        return Namespaces(namespaces=[], total=7)

    async def is_set_up() -> bool:
        await set_up_nats(encrypted_nats)
        return True

    await eventually(is_set_up)
    catalog, gateway = connect(encrypted_nats, "catalog"), connect(encrypted_nats, "gateway")
    catalog.answer(ListNamespaces, list_namespaces)
    gateway.asks(ListNamespaces)

    async with catalog.running(), gateway.running():
        assert (await gateway.ask(ListNamespaces())).total == 7
        assert gateway.connection.connected_url.scheme == "tls"


async def test_a_nats_server_that_nobody_vouches_for_is_refused(encrypted_nats: Settings, unknown: Certificate) -> None:
    for ca_file in (str(unknown.authority), None):
        with pytest.raises((ssl.SSLError, nats.errors.Error)):
            await set_up_nats(encrypted_nats.model_copy(update={"nats_ca_file": ca_file}))


# PostgreSQL

SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
"""What a client says first that wants to encrypt (PostgreSQL's frontend/backend protocol, SSLRequest)."""


@pytest.fixture
async def encrypted_postgres(stack: Stack, known: Certificate) -> AsyncIterator[str]:
    """The stack's PostgreSQL, which is not built with OpenSSL, behind a port that talks to nobody in the clear."""
    url = httpx.URL(stack.settings.postgres_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(known.server_context())
                await pass_on(reader, writer, (url.host, url.port or 5432))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield str(url.copy_with(host="127.0.0.1", port=server.sockets[0].getsockname()[1]))
    finally:
        server.close()


def verified(stack: Stack, url: str, by: Certificate) -> Settings:
    return stack.settings.model_copy(update={"postgres_url": f"{url}?sslmode=verify-full&sslrootcert={by.authority}"})


async def test_a_role_logs_in_encrypted(stack: Stack, encrypted_postgres: str, known: Certificate) -> None:
    settings = verified(stack, encrypted_postgres, known)
    await set_up_postgres(settings)

    async with database(settings, "catalog", None, wait_seconds=1) as pool:
        assert await pool.fetchval("select current_user") == "catalog"


async def test_a_database_that_nobody_vouches_for_is_refused(
    stack: Stack, encrypted_postgres: str, unknown: Certificate
) -> None:
    with pytest.raises(Unavailable, match="certificate"):
        async with database(verified(stack, encrypted_postgres, unknown), "catalog", None, wait_seconds=0.1):
            pytest.fail("it logged in")


# The object store


@asynccontextmanager
async def encrypting(address: tuple[str, int], shown: Certificate) -> AsyncIterator[int]:
    """A port that shows a certificate and passes all that it is told to the store."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pass_on(reader, writer, address)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=shown.server_context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def encrypted_store(stack: Stack, known: Certificate) -> AsyncIterator[Settings]:
    """The stack's store, reached over TLS only."""
    url = httpx.URL(stack.settings.s3_endpoint)
    async with encrypting((url.host, url.port or 80), known) as port:
        update = {"s3_endpoint": f"https://127.0.0.1:{port}", "s3_ca_file": str(known.authority)}
        yield stack.settings.model_copy(update=update)


async def test_data_is_encrypted_on_its_whole_way(encrypted_store: Settings, tmp_path: Path) -> None:
    settings, key = encrypted_store, f"tls/landing/zone/{uuid4().hex}.csv"
    table = Qualified("tls", "bronze", f"t{uuid4().hex[:8]}")
    async with (
        object_store(settings, "ingest") as objects,
        uplink(settings) as http,
        lakehouse(settings, "runner") as tables,
    ):
        with (tmp_path / "upload").open("w+b") as content:
            content.write(b"a,b\n1,x\n2,y\n")
            content.seek(0)
            url = await objects.presign_put(key, timedelta(minutes=1))
            sent = await http.put(url, content, size_bytes=12, content_type="text/csv")
        assert (await objects.head(key)).version_id == sent.version_id

        await tables.ensure_namespace(table.namespace, table.layer)
        branch = f"run-{uuid4()}-1"
        await tables.create_branch(branch)
        rows = await asyncio.to_thread(write_table, settings, branch, table, key)

    assert rows == [(1, "x"), (2, "y")]


def write_table(settings: Settings, branch: str, table: Qualified, key: str) -> list[tuple[int, str]]:
    """Read a file with DuckDB, write another and a table of it, and read that, as a run does."""
    file = f"s3://{settings.s3_bucket}/tls/bronze/{table.name}/data/{uuid4().hex}.parquet"
    with connect_duckdb(settings, "runner") as engine, catalogs(settings, "runner") as on:
        engine.execute(f"copy (from read_csv('s3://{settings.s3_bucket}/{key}')) to '{file}' (format parquet)")
        rows: pa.Table = engine.execute(f"from '{file}'").to_arrow_table()
        on(branch).create_table(tuple(table), rows.schema).append(rows)
        location = on(branch).load_table(tuple(table)).metadata_location
        with connect_duckdb(settings, "query") as reader:
            found: list[tuple[int, str]] = reader.execute(f"from iceberg_scan('{location}') order by a").fetchall()
    return found


async def test_a_store_that_nobody_vouches_for_is_refused_by_every_client(
    encrypted_store: Settings, unknown: Certificate, tmp_path: Path
) -> None:
    distrusting = encrypted_store.model_copy(update={"s3_ca_file": str(unknown.authority)})
    table = Qualified("tls", "bronze", f"t{uuid4().hex[:8]}")
    async with object_store(encrypted_store, "runner") as objects:
        address = await objects.presign_get("tls/bronze/x/data/1.csv", timedelta(minutes=1))
        await objects.put("tls/bronze/x/data/1.csv", b"a\n1\n")

    async with object_store(distrusting, "runner") as objects:
        with pytest.raises(Unavailable):
            await objects.get("tls/bronze/x/data/1.csv")
    async with uplink(distrusting) as http:
        with pytest.raises(Unavailable):
            [line async for line in http.lines(address)]
    with connect_duckdb(distrusting, "runner") as engine:
        for statement in (
            f"from read_csv('s3://{distrusting.s3_bucket}/tls/bronze/x/data/1.csv')",
            f"copy (select 1) to 's3://{distrusting.s3_bucket}/tls/bronze/x/data/2.parquet' (format parquet)",
        ):
            with pytest.raises(duckdb.IOException):
                await asyncio.to_thread(engine.execute, statement)
    async with lakehouse(distrusting, "runner") as tables:
        await tables.ensure_namespace(table.namespace, table.layer)
        branch = f"run-{uuid4()}-1"
        await tables.create_branch(branch)
        with pytest.raises((Unavailable, OSError)):
            await asyncio.to_thread(fill_table, distrusting, branch, table)


def fill_table(settings: Settings, branch: str, table: Qualified) -> None:
    rows = pa.table({"a": [1]})
    with catalogs(settings, "runner") as on:
        on(branch).create_table(tuple(table), rows.schema).append(rows)


async def test_a_store_is_set_up_over_tls(encrypted_store: Settings) -> None:
    await set_up_object_store(encrypted_store)


async def test_the_bucket_may_stand_in_the_name_of_the_host(stack: Stack) -> None:
    update = {"s3_endpoint": "https://s3.example.com", "s3_path_style": False}
    async with object_store(stack.settings.model_copy(update=update), "ingest") as objects:
        address = await objects.presign_get("default/landing/zone/a.csv", timedelta(minutes=1))

    assert address.startswith("https://rat.s3.example.com/default/landing/zone/a.csv?")
