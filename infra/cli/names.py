"""Names of pipelines and landing zones as people type them."""

import typer

from infra.cli.call import usage
from infra.cli.choices import LayerChoice
from shared.similar import expected

PIPELINE = typer.Argument(metavar="PIPELINE", help="`namespace.layer.name`, or `layer.name` of `default`.")
"""The argument that names a pipeline."""


def split(pipeline: str) -> tuple[str, str, str]:
    """Namespace, layer and name of `namespace.layer.name`, or of `layer.name` of `default`."""
    match pipeline.split("."):
        case [layer, name]:
            namespace = "default"
        case [namespace, layer, name]:
            pass
        case _:
            raise usage(f"{pipeline!r} is not namespace.layer.name, nor layer.name of `default`")
    if layer not in list(LayerChoice):
        raise usage(f"{pipeline!r}: {layer!r} is no layer{expected(layer, LayerChoice)}")
    return namespace, layer, name


def path_of(pipeline: str) -> str:
    """The path of a pipeline in the API."""
    return f"/pipelines/{'/'.join(split(pipeline))}"


def split_zone(zone: str) -> tuple[str, str]:
    """Namespace and name of `namespace/zone`, or of a zone of `default`."""
    namespace, _, name = zone.rpartition("/")
    if "/" in namespace or not name:
        raise usage(f"{zone!r} is not namespace/zone, nor a zone of `default`")
    return namespace or "default", name
