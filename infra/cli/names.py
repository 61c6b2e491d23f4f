"""Names of pipelines and landing zones as people type them."""

import typer

from infra.cli.call import usage

PIPELINE = typer.Argument(metavar="PIPELINE", help="`namespace.layer.name`, or `layer.name` of `default`.")
"""The argument that names a pipeline."""


def split(pipeline: str) -> tuple[str, str, str]:
    """Namespace, layer and name of `namespace.layer.name`, or of `layer.name` of `default`."""
    match pipeline.split("."):
        case [layer, name]:
            return "default", layer, name
        case [namespace, layer, name]:
            return namespace, layer, name
        case _:
            raise usage(f"{pipeline!r} is not namespace.layer.name")


def path_of(pipeline: str) -> str:
    """The path of a pipeline in the API."""
    return f"/pipelines/{'/'.join(split(pipeline))}"


def split_zone(zone: str) -> tuple[str, str]:
    """Namespace and name of `namespace/zone`, or of a zone of `default`."""
    namespace, _, name = zone.rpartition("/")
    return namespace or "default", name
