"""Names in an author's SQL: reserved words before a dot are quoted, and places are told in the author's own text."""

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

import duckdb

_WORD = re.compile(rb"[A-Za-z_]+")


@dataclass(frozen=True)
class Quoted:
    """SQL that DuckDB parses, and how to find its places in the text that the author wrote.

    Positions are offsets in bytes of UTF-8, as DuckDB's errors count.
    """

    author: str
    sql: str
    inserted: tuple[int, ...]
    """Where in `sql` a quote stands that the author did not write, in order."""

    def author_position(self, position: int) -> int:
        """Where in the author's text the byte at `position` of `sql` stands."""
        return position - bisect_left(self.inserted, position)


def quote_reserved(sql: str) -> Quoted:
    """Quote each keyword that stands before a dot, so that `default.bronze.orders` is a name.

    DuckDB's own tokenizer says what is a keyword and what is text in a string or a comment.
    """
    text = sql.encode()
    tokens = duckdb.tokenize(sql)
    pieces: list[bytes] = []
    inserted: list[int] = []
    done = 0
    for (start, kind), (following, following_kind) in pairwise(tokens):
        word = _WORD.match(text, start)
        has_dot = following_kind == duckdb.token_type.operator and text[following : following + 1] == b"."
        if kind != duckdb.token_type.keyword or word is None or not has_dot:
            continue
        opening = start + len(inserted)
        inserted += [opening, opening + 1 + len(word[0])]
        pieces += [text[done:start], b'"', word[0], b'"']
        done = word.end()
    return Quoted(sql, b"".join([*pieces, text[done:]]).decode(), tuple(inserted))


def line_and_column(sql: str, position: int) -> tuple[int, int]:
    """The line and the column, both from 1, of the character at an offset in bytes of UTF-8."""
    before = sql.encode()[:position].decode(errors="ignore")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
