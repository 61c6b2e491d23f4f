"""How things are called: namespaces, layers, pipelines and tables."""

import re
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import Field

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
QUALIFIED_PATTERN = r"^[a-z][a-z0-9_-]{0,62}\.(bronze|silver|gold)\.[a-z][a-z0-9_-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["default"])]
"""The name of a namespace, pipeline, table or zone: a lower-case letter, then up to 62 letters, digits, `_` or `-`."""

PipelineName = Annotated[str, Field(pattern=QUALIFIED_PATTERN, examples=["default.bronze.flights"])]
"""A pipeline and the table it writes: `namespace.layer.name`."""


class Layer(StrEnum):
    """Where a table stands on the way from raw to reported."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"


class Qualified(NamedTuple):
    """The three parts of a pipeline's or table's name."""

    namespace: str
    layer: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split `namespace.layer.name`; `ValueError` says what is wrong with it."""
        if not re.fullmatch(QUALIFIED_PATTERN, text):
            raise ValueError(
                f"{text!r} is not namespace.layer.name (names match {NAME_PATTERN}, layers are bronze, silver and gold)"
            )
        namespace, layer, name = text.split(".")
        return cls(namespace, layer, name)

    def __str__(self) -> str:
        return f"{self.namespace}.{self.layer}.{self.name}"

    @property
    def folder(self) -> str:
        """The S3 prefix of the pipeline's code, with a slash at its end."""
        return f"{self.namespace}/pipelines/{self.layer}/{self.name}/"
