create table landing_zones (
  id uuid primary key default gen_random_uuid(),
  namespace text not null,
  name text not null,
  description text not null,
  owner text,
  expected_schema text not null,
  processed_max_age_days integer check (processed_max_age_days >= 1),
  auto_purge boolean not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  removed_at timestamptz,
  swept_at timestamptz
);

create unique index landing_zones_name on landing_zones (namespace, name) where removed_at is null;
create index landing_zones_swept on landing_zones (swept_at nulls first) where removed_at is null;

-- A row for each version of a file.
create table landing_files (
  id uuid primary key,
  zone_id uuid not null references landing_zones,
  filename text not null,
  key text not null,
  version_id text not null,
  etag text not null,
  size_bytes bigint not null,
  content_type text,
  state text not null check (state in ('landed', 'rejected', 'superseded', 'removed', 'processed')),
  reason text,
  -- The newest version of its name, and not taken out: with state landed or processed it is in the zone.
  is_current boolean not null,
  -- Taken out for good, whatever still lies in the store.
  is_withdrawn boolean not null default false,
  processed_by uuid,
  uploaded_by text,
  uploaded_at timestamptz not null,
  recorded_at timestamptz not null default now(),
  -- The run that wants it archived, the moment it left the zone for that, and the moment it was moved.
  archive_run_id uuid,
  archiving_at timestamptz,
  archived_at timestamptz,
  check (not (is_current and is_withdrawn))
);

create unique index landing_files_current on landing_files (zone_id, filename) where is_current;
create index landing_files_uploaded on landing_files (zone_id, uploaded_at);
create index landing_files_to_archive on landing_files (zone_id) where archive_run_id is not null and archived_at is null;
create index landing_files_archived on landing_files (zone_id, archived_at) where archived_at is not null;

-- A row for each run that asked for files or has ended.
create table runs (
  run_id uuid primary key,
  pipeline_id uuid not null,
  pipeline text not null,
  newest_attempt integer not null default 0,
  changed_attempt integer,
  looked_at timestamptz not null default now(),
  -- The mark: whoever asks for a settled run is told that it is over.
  settled_at timestamptz,
  -- Good runs of pipelines that archive: when file.processed was said of them.
  is_archiving boolean not null default false,
  said_at timestamptz
);

create index runs_unsettled on runs (pipeline_id) where settled_at is null;
create index runs_to_say on runs (run_id) where is_archiving and said_at is null;

-- The answers that runs got, the empty ones too.
create table file_claims (
  run_id uuid not null references runs,
  namespace text not null,
  zone text not null,
  form text not null check (form in ('all', 'new')),
  zone_id uuid not null references landing_zones,
  primary key (run_id, namespace, zone, form)
);

create table file_reads (
  run_id uuid not null references runs,
  zone_id uuid not null references landing_zones,
  form text not null check (form in ('all', 'new')),
  position integer not null,
  file_id uuid not null references landing_files,
  pipeline_id uuid not null,
  state text not null default 'claimed' check (state in ('claimed', 'read', 'released')),
  -- The attempt that was told that this claim has moved, or is gone.
  changed_attempt integer,
  primary key (run_id, zone_id, form, position)
);

create index file_reads_file on file_reads (file_id, pipeline_id, state);

-- What is published reads these zones; kept beyond removal, as events may come in any order.
create table published_pipelines (
  pipeline_id uuid primary key,
  pipeline text not null,
  version integer not null,
  archives_files boolean not null,
  removed_at timestamptz
);

create table zone_readers (
  pipeline_id uuid not null references published_pipelines,
  namespace text not null,
  zone text not null,
  primary key (namespace, zone, pipeline_id)
);

-- Versions to be deleted from the store, with all older ones of their key.
create table store_deletions (
  key text not null,
  version_id text not null,
  zone_id uuid not null references landing_zones,
  filename text not null,
  requested_at timestamptz not null default now(),
  -- No unsettled run holds a version of the name that this takes.
  is_clear boolean not null default false,
  primary key (key, version_id)
);
