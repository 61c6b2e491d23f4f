"""What a trigger watches, by its type: read from its config, found again by the events that it hears."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.names import Layer, Name
from contracts.triggers import TriggerType
from shared.errors import Invalid


class LandingZoneUpload(BaseModel):
    """Files that land in one zone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Name
    zone_name: Name

    @property
    def source(self) -> str:
        """What an event is from that concerns this trigger."""
        return zone_source(self.namespace, self.zone_name)

    @property
    def label(self) -> str:
        """How the runs that it asks for are labelled."""
        return f"trigger:lz_upload:{self.namespace}/{self.zone_name}"


class PipelineSuccess(BaseModel):
    """Runs of one pipeline that succeed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Name
    layer: Layer
    pipeline: Name

    @property
    def source(self) -> str:
        """What an event is from that concerns this trigger."""
        return pipeline_source(self.upstream)

    @property
    def label(self) -> str:
        """How the runs that it asks for are labelled."""
        return f"trigger:pipeline_success:{self.namespace}/{self.layer}/{self.pipeline}"

    @property
    def upstream(self) -> str:
        """The name in full of the pipeline whose success fires it."""
        return f"{self.namespace}.{self.layer}.{self.pipeline}"


Watch: TypeAlias = LandingZoneUpload | PipelineSuccess

_WATCHES: Mapping[TriggerType, type[LandingZoneUpload] | type[PipelineSuccess]] = {
    TriggerType.LANDING_ZONE_UPLOAD: LandingZoneUpload,
    TriggerType.PIPELINE_SUCCESS: PipelineSuccess,
}


def zone_source(namespace: str, zone: str) -> str:
    """The source of the files that land in a zone."""
    return f"zone:{namespace}/{zone}"


def pipeline_source(pipeline: str) -> str:
    """The source of the successes of a pipeline."""
    return f"pipeline:{pipeline}"


def watch(kind: TriggerType, config: Mapping[str, Any]) -> Watch:
    """Read the config of a trigger; `Invalid` names each key that is missing, unknown or wrong."""
    try:
        return _WATCHES[kind].model_validate(dict(config))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in ('config', *problem['loc']))}: {problem['msg']}"
            for problem in error.errors()
        )
        raise Invalid(f"a {kind} trigger cannot be made of this: {problems}") from error


def cycle_closed_by(upstream: str, downstream: str, edges: Iterable[tuple[str, str]]) -> tuple[str, ...] | None:
    """The cycle that one more edge would close among pipelines that trigger each other, None if there is none.

    An edge leads from the pipeline that succeeds to the one that is run for it. The cycle begins and ends with
    `upstream`.
    """
    following: dict[str, list[str]] = {}
    for before, after in edges:
        following.setdefault(before, []).append(after)
    paths: list[tuple[str, ...]] = [(upstream, downstream)]
    seen = {downstream}
    for path in paths:
        if path[-1] == upstream:
            return path
        for pipeline in sorted(following.get(path[-1], ())):
            if pipeline not in seen:
                seen.add(pipeline)
                paths.append((*path, pipeline))
    return None
