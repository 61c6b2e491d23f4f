"""The numbers of columns as Nessie gives them: whatever numbers a new table comes with, it counts anew.

Files are written before the table is committed, with the numbers that their columns will have, so the table has to come
with the numbers that Nessie would give: depth first, where PyIceberg counts level by level.
"""

from collections.abc import Iterator
from itertools import count

from pyiceberg.partitioning import assign_fresh_partition_spec_ids
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import assign_fresh_sort_order_ids
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType


def counted_depth_first(metadata: TableMetadata) -> TableMetadata:
    """The metadata of a new table with its columns counted depth first."""
    old = metadata.schema()
    numbers = count(1)
    new = Schema(*(_counted_field(field, numbers) for field in old.fields), schema_id=old.schema_id)
    return metadata.model_copy(
        update={
            "schemas": [new],
            "last_column_id": new.highest_field_id,
            "partition_specs": [assign_fresh_partition_spec_ids(metadata.spec(), old, new)],
            "sort_orders": [assign_fresh_sort_order_ids(metadata.sort_order(), old, new)],
        }
    )


def _counted_field(field: NestedField, numbers: Iterator[int]) -> NestedField:
    number = next(numbers)
    return field.model_copy(update={"field_id": number, "field_type": _counted(field.field_type, numbers)})


def _counted(kind: IcebergType, numbers: Iterator[int]) -> IcebergType:
    match kind:
        case StructType(fields=fields):
            return StructType(*(_counted_field(field, numbers) for field in fields))
        case ListType():
            number = next(numbers)
            return ListType(number, _counted(kind.element_type, numbers), kind.element_required)
        case MapType():
            key_number = next(numbers)
            key = _counted(kind.key_type, numbers)
            return MapType(key_number, key, next(numbers), _counted(kind.value_type, numbers), kind.value_required)
        case _:
            return kind
