"""The shape of a table as it goes on: columns and partition fields keep their ids, and new ones get new ones."""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import count

from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import parse_transform
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StructType,
)


def numbered(wanted: Schema, present: Schema | None, last_id: int) -> Schema:
    """The wanted columns with the ids that they have in the present schema, by name, and new ones above the last.

    A column whose values cannot be read as the wanted type is another column, and gets another id.
    """
    numbers = count(last_id + 1)
    known = present.as_struct() if present is not None else StructType()
    return Schema(*_fields(wanted.as_struct(), known, numbers))


def partitioned(fields: Sequence[tuple[str, str]], schema: Schema, specs: Sequence[PartitionSpec]) -> PartitionSpec:
    """The spec of these columns and transforms: one that there is already, or a new one.

    `ValueError` where there is no such column, or its type has no such transform.
    """
    known = {(field.source_id, str(field.transform)): field for spec in specs for field in spec.fields}
    last = max((spec.last_assigned_field_id for spec in specs), default=PARTITION_FIELD_ID_START - 1)
    numbers = count(last + 1)
    made: list[PartitionField] = []
    for column, name in fields:
        source = schema.find_field(column)
        transform = parse_transform(name)
        if not source.field_type.is_primitive or not transform.can_transform(source.field_type):
            raise ValueError(f"column {column!r} is {source.field_type}, which cannot be partitioned by {name}")
        field = known.get((source.field_id, str(transform)))
        number = field.field_id if field is not None else next(numbers)
        taken = {one.name for one in schema.fields if one.name != column} | {one.name for one in made}
        name_of_field = field.name if field is not None else _free(_name_of(column, name), taken)
        made.append(PartitionField(source.field_id, number, transform, name_of_field))
    found = next((spec for spec in specs if spec.fields == tuple(made)), None)
    return found or PartitionSpec(*made, spec_id=max((spec.spec_id for spec in specs), default=-1) + 1)


def _name_of(column: str, transform: str) -> str:
    """What Iceberg calls a partition field: `day` and a column `at` make `at_day`.

    Manifests are Avro, where a name has letters, digits and underscores only, and does not begin with a digit.
    """
    kind, _, number = transform.rstrip("]").partition("[")
    column = re.sub(r"^(?=\d)|[^A-Za-z0-9_]", "_", column)
    match kind:
        case "identity":
            return column
        case "void":
            return f"{column}_null"
        case "truncate":
            return f"{column}_trunc_{number}"
        case "bucket":
            return f"{column}_bucket_{number}"
        case _:
            return f"{column}_{kind}"


def _free(name: str, taken: Collection[str]) -> str:
    """A name that neither another field has, nor a column but the one that the field is made of."""
    while name in taken:
        name += "_"
    return name


def _fields(wanted: StructType, known: StructType, numbers: Iterator[int]) -> Iterator[NestedField]:
    present = {field.name: field for field in known.fields}
    for field in wanted.fields:
        before = present.get(field.name)
        if before is not None and is_readable_as(before.field_type, field.field_type):
            kind = _numbered(field.field_type, before.field_type, numbers)
            yield field.model_copy(update={"field_id": before.field_id, "field_type": kind})
        else:
            number = next(numbers)
            kind = _numbered(field.field_type, None, numbers)
            yield field.model_copy(update={"field_id": number, "field_type": kind})


def _numbered(wanted: IcebergType, known: IcebergType | None, numbers: Iterator[int]) -> IcebergType:
    match wanted:
        case StructType():
            return StructType(*_fields(wanted, known if isinstance(known, StructType) else StructType(), numbers))
        case ListType():
            before = known if isinstance(known, ListType) else None
            number = before.element_id if before else next(numbers)
            inner = _numbered(wanted.element_type, before.element_type if before else None, numbers)
            return ListType(number, inner, wanted.element_required)
        case MapType():
            past = known if isinstance(known, MapType) else None
            key = past.key_id if past else next(numbers)
            key_type = _numbered(wanted.key_type, past.key_type if past else None, numbers)
            value = past.value_id if past else next(numbers)
            value_type = _numbered(wanted.value_type, past.value_type if past else None, numbers)
            return MapType(key, key_type, value, value_type, wanted.value_required)
        case _:
            return wanted


def is_readable_as(present: IcebergType, wanted: IcebergType) -> bool:
    """Whether Iceberg reads values that were written as the one as the other (Iceberg's spec, Schema Evolution)."""
    match present, wanted:
        case (IntegerType(), LongType()) | (FloatType(), DoubleType()):
            return True
        case DecimalType(), DecimalType():
            return present.scale == wanted.scale and present.precision <= wanted.precision
        case ListType(), ListType():
            return is_readable_as(present.element_type, wanted.element_type)
        case MapType(), MapType():
            return is_readable_as(present.key_type, wanted.key_type) and is_readable_as(
                present.value_type, wanted.value_type
            )
        case StructType(), StructType():
            return True
        case _:
            return present == wanted
