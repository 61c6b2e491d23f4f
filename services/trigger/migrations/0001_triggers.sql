create table pipeline_triggers (
  id uuid primary key,
  pipeline_id uuid not null,
  pipeline text not null,
  type text not null,
  config jsonb not null,
  -- What it watches, and the label of its runs; both are read from the config.
  source text not null,
  label text not null,
  enabled boolean not null,
  cooldown_seconds integer not null check (cooldown_seconds >= 0),
  last_decision_id uuid,
  last_run_id uuid,
  last_triggered_at timestamptz,
  -- The run of the last firing, until its end was heard.
  waits_for uuid,
  -- The firing that waits: the decision that deferred it, and the end of its cooldown.
  deferred_id uuid,
  due_at timestamptz,
  -- Since when, or from when on, it waits for nothing but the end of that run.
  overdue_since timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  check (num_nulls(last_decision_id, last_run_id, last_triggered_at) in (0, 3)),
  check (num_nulls(deferred_id, due_at) in (0, 2)),
  check (overdue_since is null or (deferred_id is not null and waits_for is not null))
);

create index pipeline_triggers_source on pipeline_triggers (source);
create index pipeline_triggers_pipeline on pipeline_triggers (pipeline);
create index pipeline_triggers_pipeline_id on pipeline_triggers (pipeline_id);
create index pipeline_triggers_waits_for on pipeline_triggers (waits_for) where waits_for is not null;
create index pipeline_triggers_due on pipeline_triggers (due_at) where due_at is not null and waits_for is null;
create index pipeline_triggers_overdue on pipeline_triggers (overdue_since) where overdue_since is not null;

create table trigger_decisions (
  id uuid primary key,
  trigger_id uuid not null references pipeline_triggers (id) on delete cascade,
  cause_id uuid not null,
  cause text not null,
  decision text not null,
  reason text not null,
  run_id uuid,
  due_at timestamptz,
  coalesced_into uuid,
  fired_at timestamptz,
  created_at timestamptz not null,
  unique (trigger_id, cause_id)
);

create index trigger_decisions_newest on trigger_decisions (trigger_id, created_at desc, id);
create index trigger_decisions_run on trigger_decisions (run_id) where run_id is not null;
create index trigger_decisions_fired on trigger_decisions (trigger_id, fired_at desc) where fired_at is not null;
