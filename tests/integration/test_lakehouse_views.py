"""Views live on branches, reach main by merges and stand in the log, as tables do."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, NoSuchViewError, TableAlreadyExistsError, ViewAlreadyExistsError

from contracts.names import Qualified
from shared.errors import NotFound
from shared.lakehouse.collection import find_surplus, remove
from shared.lakehouse.files import TableFiles
from shared.lakehouse.port import MAIN, BranchClosed, Lakehouse, MergeConflict, Relation, RelationKind
from shared.object_store import ObjectStore
from tests.tables import COLUMNS, Catalogs, append, create_view, merged, merged_view, new_branch, new_table, read


@pytest.fixture
def view() -> Qualified:
    return new_table()


def sql(catalog: Catalog, view: Qualified) -> str:
    told = catalog.load_view(tuple(view)).sql_for("duckdb")
    assert told is not None
    return told.sql


async def test_a_view_is_seen_by_its_branch_only_until_it_is_merged(
    lake: Lakehouse, on: Catalogs, branch: str, view: Qualified
) -> None:
    create_view(on(branch), view, "select 7 as n")

    assert await lake.relation(view) is None
    assert (await lake.relations(branch))[view].kind is RelationKind.VIEW
    merge = await lake.merge(branch, uuid4(), 1)

    assert merge is not None
    found = await lake.relation(view)
    assert found == Relation(RelationKind.VIEW, merge.tables[view] or "")
    assert (await lake.relations())[view] == found
    assert sql(on(MAIN), view) == "select 7 as n"
    assert on(MAIN).load_view(tuple(view)).properties["rat.pipeline_id"] == "1"
    assert tuple(view) in on(MAIN).list_views(("test", "bronze"))


async def test_a_view_is_no_table(lake: Lakehouse, on: Catalogs, branch: str, view: Qualified) -> None:
    await merged_view(lake, on, view)
    table = new_table()
    await merged(lake, on, table, 1)

    assert await lake.location(view) is None
    assert view not in await lake.tables()
    assert on(MAIN).view_exists(tuple(view))
    assert not on(MAIN).table_exists(tuple(view))
    assert not on(MAIN).view_exists(tuple(table))
    assert tuple(view) not in on(MAIN).list_tables(("test", "bronze"))
    with pytest.raises(NoSuchTableError):
        on(MAIN).load_table(tuple(view))
    with pytest.raises(NoSuchViewError):
        on(MAIN).load_view(tuple(table))
    with pytest.raises(NoSuchViewError):
        on(branch).drop_view(tuple(table))


async def test_one_name_is_a_table_or_a_view(lake: Lakehouse, on: Catalogs, view: Qualified) -> None:
    await merged_view(lake, on, view)
    table = new_table()
    await merged(lake, on, table, 1)
    branch = await new_branch(lake)

    with pytest.raises(ViewAlreadyExistsError):
        create_view(on(branch), view)
    with pytest.raises(ViewAlreadyExistsError):
        create_view(on(branch), table)
    with pytest.raises(TableAlreadyExistsError):
        on(branch).create_table(tuple(view), COLUMNS)


async def test_a_table_becomes_a_view_and_a_table_again(lake: Lakehouse, on: Catalogs, view: Qualified) -> None:
    first = await merged(lake, on, view, 1, 2)
    second = await merged_view(lake, on, view, "select 3 as n")
    branch = await new_branch(lake)
    on(branch).drop_view(tuple(view))
    append(on(branch), view, 4)
    third = await lake.merge(branch, uuid4(), 1)

    assert third is not None
    assert read(on(MAIN), view) == [4]
    history = await lake.history(view, 10)
    assert [change.location for change in history] == [merge.tables[view] for merge in (third, second, first)]
    kinds = [found.kind for change in history if (found := await lake.relation(view, change.snapshot))]
    assert kinds == [RelationKind.TABLE, RelationKind.VIEW, RelationKind.TABLE]
    assert await lake.location(view, second.snapshot) is None
    assert await lake.location(view, first.snapshot) == first.tables[view]


async def test_views_that_two_branches_change_are_in_conflict(lake: Lakehouse, on: Catalogs, view: Qualified) -> None:
    await merged_view(lake, on, view)
    first, second, third = [await new_branch(lake) for _ in range(3)]
    for branch in (first, second):
        on(branch).drop_view(tuple(view))
        create_view(on(branch), view, f"select '{branch}' as n")
    await lake.drop_table(third, view)

    assert await lake.merge(first, uuid4(), 1) is not None
    for branch in (second, third):
        with pytest.raises(MergeConflict) as conflict:
            await lake.merge(branch, uuid4(), 1)
        assert conflict.value.tables == (view,)
    assert sql(on(MAIN), view) == f"select '{first}' as n"


async def test_a_view_and_a_table_of_one_new_name_are_in_conflict(
    lake: Lakehouse, on: Catalogs, branch: str, view: Qualified
) -> None:
    other = await new_branch(lake)
    create_view(on(branch), view)
    append(on(other), view, 1)

    assert await lake.merge(branch, uuid4(), 1) is not None
    with pytest.raises(MergeConflict):
        await lake.merge(other, uuid4(), 1)


async def test_a_view_is_dropped_by_a_merge(lake: Lakehouse, on: Catalogs, view: Qualified) -> None:
    first = await merged_view(lake, on, view)
    branch = await new_branch(lake)

    await lake.drop_table(branch, view)
    dropped = await lake.merge(branch, None, None)

    assert dropped is not None
    assert dropped.tables == {view: None}
    assert view not in await lake.relations()
    assert (await lake.relations(first.snapshot))[view].location == first.tables[view]
    with pytest.raises(NotFound):
        await lake.drop_table(await new_branch(lake), view)


async def test_a_closed_branch_takes_no_view_and_shows_those_that_it_has(
    lake: Lakehouse, on: Catalogs, branch: str, view: Qualified
) -> None:
    create_view(on(branch), view, "select 5 as n")
    await lake.close_branch(branch)

    with pytest.raises(BranchClosed):
        create_view(on(branch), new_table())
    with pytest.raises(BranchClosed):
        on(branch).drop_view(tuple(view))
    assert sql(on(branch), view) == "select 5 as n"


async def test_the_file_of_a_view_is_collected_when_nothing_needs_it(
    lake: Lakehouse,
    on: Catalogs,
    objects: ObjectStore,
    files: Callable[[], TableFiles],
    branch: str,
    view: Qualified,
) -> None:
    merge = await merged_view(lake, on, view)
    await merged_view(lake, on, view, "select 2 as n")
    create_view(on(branch), other := new_table())
    await lake.close_branch(branch)
    await lake.delete_branch(branch)
    grace = timedelta(0)

    surplus = await find_surplus(lake, objects, files(), grace=grace)
    mine = [one for one in surplus.versions if one.key.startswith(f"{'/'.join(view)}/")]
    gone = [one for one in surplus.versions if one.key.startswith(f"{'/'.join(other)}/")]

    assert mine == []
    assert len(gone) == 1
    await remove(objects, surplus)
    assert (merge.tables[view] or "").endswith(".metadata.json")
    assert sql(on(MAIN), view) == "select 2 as n"
