"""Names of pipelines as people type them."""

from infra.cli.call import usage


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
