create table schedules (
  id uuid primary key,
  pipeline_id uuid not null,
  pipeline text not null,
  cron text not null,
  timezone text not null,
  enabled boolean not null,
  missed text not null,
  overlap text not null,
  last_run_id uuid,
  last_run_at timestamptz,
  next_run_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  check (enabled = (next_run_at is not null))
);

create index schedules_next on schedules (next_run_at) where next_run_at is not null;
create index schedules_oldest on schedules (created_at, id);
create index schedules_pipeline_id on schedules (pipeline_id);

-- Runs that were asked for, until their end or their rejection is heard.
create table asked_runs (
  run_id uuid primary key,
  schedule_id uuid not null references schedules (id) on delete cascade,
  asked_at timestamptz not null
);

create index asked_runs_schedule on asked_runs (schedule_id, asked_at);
