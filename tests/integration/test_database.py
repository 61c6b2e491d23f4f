"""A service logs in as its own role, migrates its schema once, and outlives its server."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from infra.preparing import prepare
from infra.stacks.stack import Stack
from shared.database import database, transaction
from shared.errors import Conflict, Invalid, Unavailable
from shared.settings import Settings
from tests.stacks import StackIn
from tests.waiting import eventually

ROLE = "scheduler"

Write = Callable[..., Path]


@pytest.fixture(scope="module")
async def server(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A PostgreSQL of our own, to be killed."""
    async with stack_in(tmp_path_factory.mktemp("postgres"), ["postgres"]) as stack:
        yield stack


@pytest.fixture
async def schema(server: Stack) -> str:
    """A new schema that belongs to the role."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    connection = await asyncpg.connect(
        server.settings.postgres_url, user="infra", password=server.settings.postgres_password("infra")
    )
    await connection.execute(f"create schema {name} authorization {ROLE}")
    await connection.close()
    return name


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write migrations, given as name=text, and say where they are."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name.removeprefix('m')}.sql").write_text(text)
        return tmp_path

    return write


def elsewhere(settings: Settings, port: int) -> Settings:
    return settings.model_copy(update={"postgres_url": f"postgresql://127.0.0.1:{port}/rat"})


async def test_a_service_has_a_schema_of_its_own(server: Stack, schema: str, write: Write) -> None:
    folder = write(m0001_things="create table things (id int); create index things_id on things (id);")

    async with database(server.settings, ROLE, folder, schema=schema) as pool:
        found = await pool.fetchrow("select current_user, current_schema, 'things'::regclass::text as place")

    assert dict(found or {}) == {"current_user": ROLE, "current_schema": schema, "place": "things"}


async def test_the_schema_is_called_like_the_role_by_default(server: Stack) -> None:
    async with database(server.settings, ROLE, None) as pool:
        assert await pool.fetchval("select current_schema") == ROLE


async def test_json_comes_and_goes_as_python(server: Stack, schema: str, write: Write) -> None:
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    async with database(
        server.settings, ROLE, write(m0001_j="create table j (a json, b jsonb)"), schema=schema
    ) as pool:
        await pool.execute("insert into j (a, b) values ($1, $2)", value, value)

        assert dict(await pool.fetchrow("select a, b from j") or {}) == {"a": value, "b": value}


async def test_only_new_migrations_are_applied(server: Stack, schema: str, write: Write) -> None:
    folder = write(m0001_first="create table first (id int)")
    async with database(server.settings, ROLE, folder, schema=schema):
        pass

    write(m0002_second="create table second (id int)", m0003_third="drop table first")
    async with database(server.settings, ROLE, folder, schema=schema) as pool:
        applied = await pool.fetch("select name from schema_migrations order by name")
        tables = await pool.fetchrow("select to_regclass('first') as gone, to_regclass('second') as there")

    assert [row["name"] for row in applied] == ["0001_first.sql", "0002_second.sql", "0003_third.sql"]
    assert tables is not None
    assert (tables["gone"], tables["there"]) == (None, "second")


async def test_replicas_that_start_together_migrate_once(server: Stack, schema: str, write: Write) -> None:
    folder = write(m0001_log="create table log (id int)", m0002_fill="insert into log (id) values (1)")

    async def start() -> int:
        async with database(server.settings, ROLE, folder, schema=schema) as pool:
            count: int = await pool.fetchval("select count(*) from log")
            return count

    assert await asyncio.gather(*(start() for _ in range(5))) == [1] * 5


async def test_a_migration_that_fails_leaves_nothing(server: Stack, schema: str, write: Write) -> None:
    folder = write(m0001_good="create table good (id int)", m0002_bad="create table bad (id nonsense)")

    with pytest.raises(asyncpg.UndefinedObjectError):
        async with database(server.settings, ROLE, folder, schema=schema):
            pass

    async with database(server.settings, ROLE, None, schema=schema) as pool:
        assert await pool.fetchval("select to_regclass('good')") is None
        assert await pool.fetchval("select to_regclass('schema_migrations')") is None


async def test_a_changed_migration_is_named(server: Stack, schema: str, write: Write) -> None:
    folder = write(m0001_first="create table first (id int)")
    async with database(server.settings, ROLE, folder, schema=schema):
        pass

    write(m0001_first="create table first (id bigint)")

    with pytest.raises(Conflict, match=r"0001_first\.sql was changed after it was applied"):
        async with database(server.settings, ROLE, folder, schema=schema):
            pass


async def test_a_migration_does_not_slip_in_before_an_applied_one(server: Stack, schema: str, write: Write) -> None:
    folder = write(m0002_second="create table second (id int)")
    async with database(server.settings, ROLE, folder, schema=schema):
        pass

    write(m0001_first="create table first (id int)")

    with pytest.raises(Conflict, match=r"0001_first\.sql comes before 0002_second\.sql"):
        async with database(server.settings, ROLE, folder, schema=schema):
            pass


async def test_an_older_release_runs_on_a_newer_schema(
    server: Stack, schema: str, write: Write, tmp_path: Path
) -> None:
    folder = write(m0001_first="create table first (id int)", m0002_second="create table second (id int)")
    async with database(server.settings, ROLE, folder, schema=schema):
        pass

    (tmp_path / "0002_second.sql").unlink()

    async with database(server.settings, ROLE, folder, schema=schema) as pool:
        assert await pool.fetchval("select to_regclass('second')::text") == "second"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["m1_first"], "not called NNNN_name"), (["m0001_first", "m0001_second"], "have the same number")],
)
async def test_a_misnamed_migration_is_named(
    server: Stack, schema: str, write: Write, names: list[str], message: str
) -> None:
    folder = write(**dict.fromkeys(names, "select 1"))

    with pytest.raises(Invalid, match=message):
        async with database(server.settings, ROLE, folder, schema=schema):
            pass


async def test_a_block_that_raises_leaves_nothing(server: Stack, schema: str, write: Write) -> None:
    async with database(server.settings, ROLE, write(m0001_t="create table t (id int)"), schema=schema) as pool:

        async def write_and_fail() -> None:
            async with transaction(pool) as connection:
                await connection.execute("insert into t (id) values (1)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await write_and_fail()
        assert await pool.fetchval("select count(*) from t") == 0


async def test_the_error_of_another_server_stays_what_it_is(server: Stack, schema: str) -> None:
    async with database(server.settings, ROLE, None, schema=schema) as pool:
        with pytest.raises(ConnectionRefusedError):
            async with transaction(pool):
                raise ConnectionRefusedError


async def test_a_wrong_statement_is_not_an_outage(server: Stack, schema: str) -> None:
    async with database(server.settings, ROLE, None, schema=schema) as pool:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await pool.execute("selekt 1")


async def test_a_pool_outlives_its_server(server: Stack, schema: str, write: Write) -> None:
    async with database(server.settings, ROLE, write(m0001_t="create table t (id int)"), schema=schema) as pool:

        async def write_through_a_kill() -> None:
            async with transaction(pool) as connection:
                await connection.execute("insert into t (id) values (1)")
                await server.kill("postgres")
                await connection.execute("insert into t (id) values (2)")

        async def rows() -> int | None:
            try:
                count: int = await pool.fetchval("select count(*) from t")
            except Unavailable:
                return None
            return count

        async def is_back() -> bool:
            return await rows() is not None

        with pytest.raises(Unavailable):
            await write_through_a_kill()
        assert await eventually(is_back)
        assert await rows() == 0


async def test_a_service_waits_for_its_server(server: Stack, schema: str) -> None:
    await server.kill("postgres")

    async with database(server.settings, ROLE, None, schema=schema, wait_seconds=120) as pool:
        assert await pool.fetchval("select 1") == 1


async def test_a_server_that_dies_while_it_is_prepared_is_prepared_when_it_is_back(server: Stack) -> None:
    another = await asyncpg.connect(
        server.settings.postgres_url, user="infra", password=server.settings.postgres_password("infra")
    )
    await another.execute("select pg_advisory_lock(hashtextextended('set up of the platform', 0))")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(prepare(["postgres"], server.settings, wait_seconds=60))
        await eventually(
            lambda: another.fetchval("select true from pg_locks where locktype = 'advisory' and not granted")
        )
        await server.kill("postgres")


async def test_waiting_ends(server: Stack, unused_tcp_port: int) -> None:
    with pytest.raises(Unavailable, match="PostgreSQL cannot be reached"):
        async with database(elsewhere(server.settings, unused_tcp_port), ROLE, None, wait_seconds=0.2):
            pass
