import duckdb
import pytest

from shared.sql_names import line_and_column, quote_reserved


@pytest.mark.parametrize(
    ("author", "sql"),
    [
        ("select * from default.bronze.orders", 'select * from "default".bronze.orders'),
        ("select * from DEFAULT . bronze.x", 'select * from "DEFAULT" . bronze.x'),
        ("from order.gold.group, left.x", 'from "order".gold.group, "left".x'),
        ("select default.a, 'default.a' -- default.a\n/* default.a */", None),
        ('select * from "default".bronze.x', 'select * from "default".bronze.x'),
        ("select 1 where a between.5 and 1", "select 1 where a between.5 and 1"),
        ("select $$default.x$$, e'\\' default.x'", "select $$default.x$$, e'\\' default.x'"),
        ("", ""),
    ],
)
def test_a_keyword_before_a_dot_is_quoted_and_nothing_else(author, sql):
    if sql is None:
        sql = author.replace("select default.a", 'select "default".a')

    assert quote_reserved(author).sql == sql


def test_every_place_is_found_again_in_the_authors_text():
    author = "select 'é', order.a\nfrom default.gold.order where é.a = default.x"

    quoted = quote_reserved(author)

    for position, byte in enumerate(quoted.sql.encode()):
        if position not in quoted.inserted:
            assert author.encode()[quoted.author_position(position)] == byte


def test_what_is_quoted_parses():
    quoted = quote_reserved("select order.a from default.bronze.orders as t, table.x.group")

    assert len(duckdb.extract_statements(quoted.sql)) == 1


def test_lines_and_columns_count_characters_from_one():
    sql = "select 'éé',\n  föö, bar"

    assert line_and_column(sql, 0) == (1, 1)
    assert line_and_column(sql, sql.encode().index(b"bar")) == (2, 8)
