"""What a run would change of a table on main: its rows there beside those on the branch."""

from collections.abc import Iterable, Mapping, Sequence

import duckdb

from contracts.reports import ColumnChange, TableChanges


def changes(
    connection: duckdb.DuckDBPyConnection, table: str, *, main: str | None, branch: str | None, key: Sequence[str]
) -> TableChanges:
    """Compare a table at two places of its metadata; None where it is not.

    Rows are compared as they are, with NULL like any value, and counted as often as they occur. Where a type differs,
    what main holds is read in the type of the branch.
    """
    before, after = _columns(connection, main), _columns(connection, branch)
    gained, lost, changed = _rows(connection, main, branch, before, after, key)
    return TableChanges(
        table=table,
        is_new=main is None,
        rows_added=gained - changed,
        rows_removed=lost - changed,
        rows_changed=changed,
        schema_changes=schema_changes(before, after),
    )


def schema_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[ColumnChange]:
    """What differs between two sets of columns, which are name → type: added, removed, then those of another type."""
    return [
        *(ColumnChange(column=name, change="added", after=kind) for name, kind in after.items() if name not in before),
        *(
            ColumnChange(column=name, change="removed", before=kind)
            for name, kind in before.items()
            if name not in after
        ),
        *(
            ColumnChange(column=name, change="type_changed", before=before[name], after=kind)
            for name, kind in after.items()
            if name in before and before[name] != kind
        ),
    ]


def _columns(connection: duckdb.DuckDBPyConnection, place: str | None) -> dict[str, str]:
    if place is None:
        return {}
    rows = connection.execute(f"describe from {_scan(place)}").fetchall()
    return {name: kind for name, kind, *_ in rows}


def _rows(
    connection: duckdb.DuckDBPyConnection,
    main: str | None,
    branch: str | None,
    before: Mapping[str, str],
    after: Mapping[str, str],
    key: Sequence[str],
) -> tuple[int, int, int]:
    """How many rows come, how many go, and how many of either belong to one of the other by their key."""
    names = list(after or before)
    sides = []
    if branch is not None:
        sides.append(f"select {_listed(map(_quoted, names))}, 1 as sign from {_scan(branch)}")
    if main is not None:
        columns = _listed(_as_on_branch(name, before, after) for name in names)
        sides.append(f"select {columns}, -1 as sign from {_scan(main)}")
    if not sides:
        return 0, 0, 0
    folded = [name.casefold() for name in names]
    keys = [f"c{folded.index(name.casefold())}" for name in key if name.casefold() in folded]
    row = connection.execute(
        f"""
        with
          differing as (
            select * exclude (sign), sum(sign) as sign
            from ({" union all ".join(sides)})
            group by all
            having sum(sign) <> 0
          ),
          of_a_key as (
            select
              coalesce(sum(sign) filter (sign > 0), 0) as gained,
              coalesce(-sum(sign) filter (sign < 0), 0) as lost
            from differing
            {f"group by {', '.join(keys)}" if keys else ""}
          )
        select
          coalesce(sum(gained), 0)::bigint,
          coalesce(sum(lost), 0)::bigint,
          coalesce(sum({"least(gained, lost)" if keys else "0"}), 0)::bigint
        from of_a_key
        """
    ).fetchone()
    assert row is not None, "sums are one row"
    return row[0], row[1], row[2]


def _as_on_branch(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    kind = after.get(name, before.get(name))
    if name not in before:
        return f"null::{kind}"
    return _quoted(name) if before[name] == kind else f"try_cast({_quoted(name)} as {kind})"


def _listed(expressions: Iterable[str]) -> str:
    """Expressions under names that no column of an author can be mistaken for."""
    return ", ".join(f"{expression} as c{number}" for number, expression in enumerate(expressions))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _scan(place: str) -> str:
    quoted = place.replace("'", "''")
    return f"iceberg_scan('{quoted}')"
