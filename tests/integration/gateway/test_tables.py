"""The HTTP API of tables: what they are, and SQL over them."""

import io

import httpx
import pyarrow as pa

from tests.client import TIME, Client, problem


async def test_a_table_shows_its_columns_and_what_its_owner_says(
    user: Client, http: httpx.AsyncClient, flights: str
) -> None:
    path = f"/tables/{flights.replace('.', '/')}"

    described = await http.put(f"{path}/metadata", json={"description": "flown", "column_descriptions": {"id": "key"}})
    table = await user.get(path)
    listed = await user.get("/tables", namespace="default", layer="bronze")

    assert described.status_code == 200
    assert (table["row_count"], table["description"]) == (3, "flown")
    assert table["size_bytes"] > 0
    assert TIME.fullmatch(table["updated_at"])
    assert table["columns"][0] == {"name": "id", "type": "INTEGER", "nullable": True, "description": "key"}
    assert [column["type"] for column in table["columns"][1:5]] == [
        "BIGINT",
        "DECIMAL(10,2)",
        "DATE",
        "TIMESTAMP WITH TIME ZONE",
    ]
    [summary] = [one for one in listed["tables"] if one["name"] == flights.rpartition(".")[2]]
    assert summary == {key: value for key, value in table.items() if key != "columns"}


async def test_the_schema_of_all_tables(user: Client, flights: str) -> None:
    schema = await user.get("/schema")

    [table] = [one for one in schema["tables"] if one["name"] == flights.rpartition(".")[2]]
    assert table.keys() == {"namespace", "layer", "name", "columns"}
    assert table["columns"][0] == {"name": "id", "type": "INTEGER"}


async def test_a_query_as_json(user: Client, flights: str) -> None:
    answer = await user.post("/query", {"sql": f"select * from {flights} order by id", "limit": 2})

    assert list(answer) == ["columns", "rows", "total_rows", "duration_ms", "truncated"]
    assert answer["columns"][1] == {"name": "big", "type": "BIGINT"}
    assert answer["rows"][0] == {
        "id": 0,
        "big": "9007199254740993",
        "price": "1.50",
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05.000000Z",
        "ratio": "NaN",
        "list": [1, 2],
        "struct": {"a": 1},
        "blob": "eA==",
    }
    assert (answer["total_rows"], answer["truncated"]) == (2, True)


async def test_an_empty_result_is_an_answer(user: Client) -> None:
    answer = await user.post("/query", {"sql": "select 1 as one where false"})

    assert (answer["columns"], answer["rows"]) == ([{"name": "one", "type": "INTEGER"}], [])


async def test_a_query_as_arrow_and_as_csv(http: httpx.AsyncClient, flights: str) -> None:
    sql = {"sql": f"select id, price, list from {flights} order by id"}

    arrow = await http.post("/query", json=sql, headers={"Accept": "application/vnd.apache.arrow.stream"})
    text = await http.post("/query", json=sql, headers={"Accept": "text/csv"})

    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()["id"].to_pylist() == [0, 1, 2]
    assert text.headers["content-type"].startswith("text/csv")
    assert text.text.splitlines()[:2] == ["id,price,list", '0,1.50,"[1, 2]"']


async def test_a_large_result_is_streamed_in_every_format(http: httpx.AsyncClient) -> None:
    sql = {"sql": "select i, repeat('x', 100) as text from range(100000) t(i)", "limit": 100_000}

    as_json = await http.post("/query", json=sql)
    arrow = await http.post("/query", json=sql, headers={"Accept": "application/vnd.apache.arrow.stream"})
    text = await http.post("/query", json=sql, headers={"Accept": "text/csv"})

    assert [row["i"] for row in as_json.json()["rows"]] == list(range(100_000))
    assert pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all().num_rows == 100_000
    assert len(text.text.splitlines()) == 100_001


async def test_a_mistake_in_a_query_has_duckdbs_message_and_its_place(http: httpx.AsyncClient) -> None:
    answer = await http.post("/query", json={"sql": "select 1,\n  nope"})

    body = problem(answer, 400, "INVALID_ARGUMENT")
    assert (body["line"], body["column"]) == (2, 3)
    assert 'Referenced column "nope" was not found' in body["detail"]


async def test_a_preview(user: Client, flights: str) -> None:
    answer = await user.get(f"/tables/{flights.replace('.', '/')}/preview", limit=1)

    assert len(answer["rows"]) == 1
    assert answer["truncated"] is True
