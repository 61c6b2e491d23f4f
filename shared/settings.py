"""Where the servers are, which credentials a process has, and what an operator may tune.

Every field can be given as an environment variable `RAT_<NAME>`; maps are JSON. A process holds the credentials
of the services that it runs and of no others.
"""

import json
import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import Invalid

LogLevel = Literal["debug", "info", "warning", "error", "critical"]


def _lower(level: Any) -> Any:
    return level.lower() if isinstance(level, str) else level


class S3Key(BaseModel, frozen=True):
    """One pair of S3 credentials."""

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    """Comes with keys that are good for a while only."""


class Settings(BaseSettings):
    """Everything a service is told when it starts."""

    model_config = SettingsConfigDict(env_prefix="RAT_", frozen=True, extra="forbid")

    postgres_url: str = Field(default="postgresql://127.0.0.1:5432/rat", pattern="^postgres(ql)?://")
    """Address and database without a user: each service logs in as its own role.

    With `?sslmode=verify-full&sslrootcert=…` connections are encrypted, and the server must show that it is the one.
    """
    postgres_passwords: dict[str, SecretStr] = {}
    """Role (the name of a service) → password."""

    nats_urls: list[str] = ["nats://127.0.0.1:4222"]
    nats_ca_file: str | None = None
    """Certificates of who signed those of the NATS servers, for `tls://` addresses; the system's when not given."""
    nats_passwords: dict[str, SecretStr] = {}
    """User (the name of a service, or `infra`, `publisher`, `subscriber`) → password."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Copies that JetStream keeps of each stream."""

    s3_endpoint: str = Field(default="http://127.0.0.1:8333", pattern="^https?://")
    s3_ca_file: str | None = None
    """Certificates of who signed that of the object store, for an `https://` endpoint; the system's when not given."""
    s3_path_style: bool = True
    """Whether the bucket stands in the path of an address, not in the name of the host."""
    s3_region: str = "us-east-1"
    s3_bucket: str = "rat"
    s3_keys: dict[str, S3Key] = {}
    """Role (the name of a service, or `infra`, `uploader`) → key pair."""
    s3_sts_endpoint: str | None = Field(default=None, pattern="^https?://")
    """Where `AssumeRole` is answered; where the object store is when not given, as SeaweedFS and MinIO answer it."""
    s3_run_role: str | None = None
    """The ARN of the role that the runner assumes for each run, whose process then has a key for its own table only.

    Without it that process has the runner's own key, for code of authors to find (`docs/security.md`).
    """
    s3_run_key_seconds: float = Field(default=43_200, gt=0)
    """How long a run goes on with one key before it is given a new one."""

    lakehouse: Literal["embedded", "nessie"] = "embedded"
    """Where branches and merges are kept: in the schema `lakehouse` of PostgreSQL, or by Project Nessie."""
    nessie_url: str = Field(default="http://127.0.0.1:19120", pattern="^https?://")
    nessie_ca_file: str | None = None
    """Certificates of who signed that of Nessie, for an `https://` address; the system's when not given."""
    nessie_tokens: dict[str, SecretStr] = {}
    """Role (`runner`, `query` or `catalog`, and `merge`, with which the runner moves main) → bearer token."""
    nessie_commit_timeout_seconds: float = Field(default=5, gt=0)
    """Nessie's `nessie.version.store.persist.commit-timeout-millis`, after which it gives up a commit or a merge."""
    nessie_page_size: int = Field(default=1000, ge=1)
    """Entries that Nessie is asked for at a time."""
    nessie_orphan_branch_max_age_hours: float = Field(default=24, gt=0)
    """How long the closed branch of a run stays readable, for a look at what went wrong; on either lakehouse."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=0, le=65_535)
    gateway_open: bool | None = None
    """Whether requests need no token. If nothing is said, they need none on loopback, and one on any other address."""

    runner_workers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 2), ge=1)
    """Attempts that one runner works on at a time, each in a process of its own."""
    runner_recycle_runs: int = Field(default=200, ge=1)
    """Runs after which a process of the warm pool is replaced."""
    runner_recycle_bytes: int = Field(default=1_500_000_000, gt=0)
    """Resident memory after which an idle process of the warm pool is replaced."""
    preview_timeout_seconds: float = Field(default=60, gt=0, le=60)
    """How long a preview may take, and tests that are run on demand; what is known by then is told.

    Whoever asked waits no longer than that, and than half a minute for its turn; likewise for a query.
    """
    query_workers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 2), ge=1)
    """Queries that one query service runs at a time, each in a process of its own."""
    query_memory_limit: str = "1GB"
    """What one query may use before it spills to disk, as DuckDB writes it."""
    query_timeout_seconds: float = Field(default=60, gt=0, le=60)
    """How long a query may work; waiting for whoever reads its result does not count."""
    spill_directory: str | None = None
    """Where DuckDB spills to; a temporary directory when not given."""

    run_lease_seconds: float = Field(default=30, gt=0)
    """How long a runner may be silent before NATS gives its message to another one."""
    run_heartbeat_seconds: float = Field(default=30, gt=0)
    """How often a runner says that an attempt is alive (`run.progressed`)."""
    run_silence_seconds: float = Field(default=120, gt=0)
    """How long a claimed run may be silent before catalog queues it again: more than from heartbeat to heartbeat."""
    run_outage_limit_seconds: float = Field(default=3600, gt=0)
    """How long a run waits for a server that cannot be reached before it fails as `unavailable`."""
    stuck_run_timeout_minutes: float = Field(default=120, gt=0)
    """How long a queued run may stay unclaimed before catalog queues it again."""
    sweep_interval_seconds: float = Field(default=60, gt=0)
    """How often ingest lists each zone for files that no notification told of."""
    tick_interval_seconds: float = Field(default=30, gt=0)
    """How long any loop that waits for a due time sleeps at the most."""

    compaction_min_files: int = Field(default=50, ge=2)
    """So many small files of about the same size, in a partition of a table, are written anew as few."""
    compaction_timeout_seconds: float = Field(default=1800, gt=0)
    """How long that may take of one table, waiting for its runs included; then it is broken off, and others follow."""
    reaper_interval_minutes: float = Field(default=60, gt=0)
    """How often files that nothing needs any more are removed, by one of the runners."""
    iceberg_orphan_file_max_age_days: float = Field(default=3, ge=1 / 24)
    """Younger files stay: longer than any run takes, which writes files before anything needs them."""
    iceberg_snapshot_max_age_days: float = Field(default=7, ge=1)
    """For how long what tables were on main stays readable."""

    alive_file: str | None = None
    """A file that is touched every few seconds while the services of this process turn; for health checks."""

    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _living_runs_are_heard_of_in_time(self) -> Self:
        if self.run_silence_seconds <= self.run_heartbeat_seconds:
            raise ValueError(
                f"RAT_RUN_SILENCE_SECONDS ({self.run_silence_seconds:g}) must be more than"
                f" RAT_RUN_HEARTBEAT_SECONDS ({self.run_heartbeat_seconds:g}): every run would be queued again"
            )
        return self

    def postgres_password(self, role: str) -> str:
        """The password of a role; `Invalid` when this process was not given it."""
        if role not in self.postgres_passwords:
            raise Invalid(f"RAT_POSTGRES_PASSWORDS has no entry for {role!r}")
        return self.postgres_passwords[role].get_secret_value()

    def nats_password(self, user: str) -> str:
        """The password of a NATS user; `Invalid` when this process was not given it."""
        if user not in self.nats_passwords:
            raise Invalid(f"RAT_NATS_PASSWORDS has no entry for {user!r}")
        return self.nats_passwords[user].get_secret_value()

    def s3_key(self, role: str) -> S3Key:
        """The key pair of a role; `Invalid` when this process was not given it."""
        if role not in self.s3_keys:
            raise Invalid(f"RAT_S3_KEYS has no entry for {role!r}")
        return self.s3_keys[role]

    def nessie_token(self, role: str) -> str:
        """The bearer token of a role; `Invalid` when this process was not given it."""
        if role not in self.nessie_tokens:
            raise Invalid(f"RAT_NESSIE_TOKENS has no entry for {role!r}")
        return self.nessie_tokens[role].get_secret_value()

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, secrets included, for a process that is to have them."""

        def plain(value: object) -> object:
            match value:
                case SecretStr():
                    return value.get_secret_value()
                case S3Key():
                    return {name: plain(item) for name, item in value if item is not None}
                case dict():
                    return {key: plain(item) for key, item in value.items()}
                case _:
                    return value

        variables = {}
        for name in type(self).model_fields:
            value = plain(getattr(self, name))
            if value is None:
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            variables[f"RAT_{name.upper()}"] = text
        return variables
