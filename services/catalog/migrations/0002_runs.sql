create table runs (
  id uuid primary key,
  pipeline_id uuid not null references pipelines (id),
  pipeline text not null,
  status text not null default 'pending'
    check (status in ('pending', 'running', 'success', 'failed', 'cancelled')),
  trigger text not null,
  parameters jsonb not null default '{}',
  dry_run boolean not null default false,

  -- What it runs: a wanted version, or a draft's pins, as they were requested; then what was pinned when it was queued.
  wanted_version int,
  draft_pins jsonb,
  version int,
  pins jsonb,

  -- The protocol.
  attempt int not null default 0,
  queue_number int not null default 0,
  queued_at timestamptz,
  claimed_at timestamptz,
  heard_at timestamptz,
  cancel_requested_at timestamptz,
  ending jsonb,
  head text,
  lost_in_a_row int not null default 0,
  outage_since timestamptz,
  retries int not null default 0,
  conflicts int not null default 0,
  file_changes int not null default 0,

  -- How it went.
  decided_by int,
  branch text,
  started_at timestamptz,
  finished_at timestamptz,
  duration_ms bigint,
  rows_written bigint not null default 0,
  files_read bigint not null default 0,
  error text,
  error_kind text,
  phase_profiles jsonb not null default '[]',
  inputs jsonb not null default '[]',
  outputs jsonb not null default '[]',
  report_key text,
  logs_s3_path text,
  logs jsonb not null default '[]',
  created_at timestamptz not null default now(),

  check ((finished_at is null) = (status in ('pending', 'running')))
);

-- One run of a pipeline at a time.
create unique index one_queued_run_of_a_pipeline on runs (pipeline_id)
  where queued_at is not null and finished_at is null;
create index runs_that_wait on runs (pipeline_id, created_at, id)
  where queued_at is null and finished_at is null;
create index runs_that_are_open on runs (heard_at)
  where finished_at is null;
create index runs_by_time on runs (created_at desc, id);
create index runs_of_a_pipeline on runs (pipeline, created_at desc);

-- The first outcome of each request, and in time the run's terminal state: kept for good, beyond the run itself.
create table run_requests (
  run_id uuid primary key,
  pipeline text not null,
  pipeline_id uuid,
  dry_run boolean not null default false,
  body_hash text,
  rejection text,
  message text,
  terminal_status text,
  requested_at timestamptz not null default now()
);

-- Which attempt each claim was given: a claim that is asked again is answered again.
create table run_claims (
  run_id uuid not null references runs (id) on delete cascade,
  claim text not null,
  attempt int not null,
  claimed_at timestamptz not null default now(),
  primary key (run_id, claim)
);

create table quality_results (
  id uuid primary key,
  run_id uuid not null references runs (id) on delete cascade,
  pipeline_id uuid not null references pipelines (id),
  test_name text not null,
  status text not null check (status in ('passed', 'failed', 'warned', 'error')),
  severity text not null,
  value numeric,
  duration_ms double precision not null,
  sample_rows jsonb not null default '[]',
  message text,
  ran_at timestamptz not null,
  unique (run_id, test_name)
);
create index results_of_a_test on quality_results (pipeline_id, test_name, ran_at desc);
