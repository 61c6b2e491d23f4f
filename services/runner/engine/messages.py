"""DuckDB's messages, in words that tell an author what to do; those that do so already stay as they are."""

import re
from collections.abc import Callable
from typing import Final, TypeAlias

import duckdb

from shared.similar import closest

_CLASS: Final = re.compile(r"^[A-Z][A-Za-z ]* error: ")
"""What kind of error it is in DuckDB's eyes."""

_Reworded: TypeAlias = Callable[[re.Match[str]], str]

_MOST_NAMES: Final = 8
_MOST_CANDIDATES: Final = 3
_KEYWORDS: Final = frozenset(
    {"select", "distinct", "from", "where", "group", "having", "order", "limit", "offset", "join", "left", "right"}
    | {"inner", "outer", "cross", "using", "union", "intersect", "except", "with", "recursive", "qualify", "window"}
    | {"case", "when", "then", "else", "between", "null", "like", "and"}
)


def reworded(message: str) -> str:
    """A message of DuckDB, without its error's class where it is told in our words."""
    for pattern, told in _MESSAGES:
        if found := pattern.search(message):
            return told(found)
    return _CLASS.sub("", message)


def misspelt_keyword(sql: str, position: int) -> str:
    """The end of a message about a syntax error at this byte: the keyword that was meant there or before."""
    text = sql.encode()
    tokens = duckdb.tokenize(sql)
    starts = [start for start, _ in tokens]
    at = next((index for index, start in enumerate(starts) if start == position), len(tokens))
    for index in (at, at - 1):
        if not 0 <= index < len(tokens) or tokens[index][1] != duckdb.token_type.identifier:
            continue
        word = re.match(rb"\w+", text[starts[index] :])
        meant = closest(word[0].decode(), _KEYWORDS) if word and len(word[0]) > 2 else None
        if word and meant:
            return f", did you mean {meant!r} instead of {word[0].decode()!r}?"
    return ""


def named_once(message: str, sql: str) -> int | None:
    """The byte of `sql` where the only name stands that a message quotes; None if that is not one place."""
    quoted = set(re.findall(r'"(\w+)"', message))
    text = sql.encode()
    places = [
        start
        for start, kind in duckdb.tokenize(sql)
        if kind == duckdb.token_type.identifier
        and any(re.match(rb'"?' + name.encode() + rb"(?!\w)", text[start:]) for name in quoted)
    ]
    return places[0] if len(places) == 1 else None


def _names(listed: str) -> list[str]:
    return re.findall(r'"((?:[^"]|"")*)"', listed)


def _not_there(what: str, name: str, known: list[str]) -> str:
    meant = closest(name, (one.rpartition(".")[2] for one in known))
    if meant is not None:
        return f'{what}, did you mean "{meant}"?'
    some = ", ".join(f'"{one}"' for one in known[:_MOST_NAMES])
    return f"{what}; there is {some}" if known else what


def _no_function(found: re.Match[str]) -> str:
    candidates = [line.strip() for line in found[3].strip().splitlines()]
    some = "; ".join(candidates[:_MOST_CANDIDATES])
    takes = f" (it takes {some})" if len(candidates) <= _MOST_CANDIDATES else ""
    return f"{found[1]} does not take the types {found[2]}{takes}: cast a value, as value::VARCHAR"


_MESSAGES: Final[tuple[tuple[re.Pattern[str], _Reworded], ...]] = (
    (
        re.compile(r'Referenced column "(.*?)" not found in FROM clause!(?:\s*Candidate bindings:(.*))?', re.DOTALL),
        lambda found: _not_there(f'there is no column "{found[1]}"', found[1], _names(found[2] or "")),
    ),
    (
        re.compile(r'Referenced column "(.*?)" was not found because the FROM clause is missing'),
        lambda found: f'there is no column "{found[1]}", as the query has no FROM',
    ),
    (
        re.compile(r'Table "(.*?)" does not have a column named "(.*?)"(?:\s*Candidate bindings:(.*))?', re.DOTALL),
        lambda found: _not_there(f'"{found[1]}" has no column "{found[2]}"', found[2], _names(found[3] or "")),
    ),
    (
        re.compile(r'Referenced table "(.*?)" not found!(?:\s*Candidate tables:(.*))?', re.DOTALL),
        lambda found: _not_there(
            f'there is no table "{found[1]}" in this FROM clause', found[1], _names(found[2] or "")
        ),
    ),
    (
        re.compile(
            r"(?:Scalar |Table |Aggregate )?(Function|Type) with name (\S+) does not exist!(?:\s*Did you mean(.*))?",
            re.DOTALL,
        ),
        lambda found: _not_there(f'there is no {found[1].lower()} "{found[2]}"', found[2], _names(found[3] or "")),
    ),
    (
        re.compile(
            r"No function matches the given name and argument types '(\S+?)(\(.*?\))'\..*Candidate functions:(.*)",
            re.DOTALL,
        ),
        _no_function,
    ),
    (
        re.compile(r'Invalid named parameter "(.*?)" for function (\w+)\s*Candidates:(.*)', re.DOTALL),
        lambda found: _not_there(
            f'{found[2]} has no parameter "{found[1]}"', found[1], re.findall(r"^\s*(\w+) ", found[3], re.MULTILINE)
        ),
    ),
    (
        re.compile(r'Cannot access \w+ "(.*?)" - .* disabled by configuration'),
        lambda found: f'"{found[1]}" cannot be read here: a pipeline reads files of the platform\'s own bucket only',
    ),
    (
        re.compile(r"(Error when sniffing file .*?)\nThe search space used was:.*?(\nPossible fixes:.*)", re.DOTALL),
        lambda found: found[1] + found[2].rstrip(),
    ),
)
