-- A deleted namespace stays as a row: deleted pipelines, whose versions are kept for a while, refer to it.
create table namespaces (
  id uuid primary key default gen_random_uuid(),
  name text not null unique,
  description text not null default '',
  created_by text,
  created_at timestamptz not null default now(),
  deleted_at timestamptz
);
insert into namespaces (name, description) values ('default', 'Where pipelines live unless told otherwise.');

create table pipelines (
  id uuid primary key default gen_random_uuid(),
  namespace text not null references namespaces (name),
  layer text not null check (layer in ('bronze', 'silver', 'gold')),
  name text not null,
  type text not null check (type in ('sql', 'python')),
  s3_path text not null,
  description text not null default '',
  owner text,
  published_versions jsonb not null default '{}',
  version int,
  draft_dirty boolean not null default true,
  -- Counts what changes the draft or its publication: who looked at the folder meanwhile has to look again.
  revision bigint not null default 0,
  max_versions int not null default 50 check (max_versions > 0),
  published_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  -- When the draft of a deleted pipeline was taken out of its folder, which the next one of its name will use.
  cleared_at timestamptz,
  check ((version is null) = (published_at is null)),
  check (cleared_at is null or deleted_at is not null)
);
create unique index one_living_pipeline_of_a_name on pipelines (namespace, layer, name)
  where deleted_at is null;
create index pipelines_to_be_cleared on pipelines (s3_path)
  where deleted_at is not null and cleared_at is null;

create table pipeline_versions (
  id uuid primary key default gen_random_uuid(),
  pipeline_id uuid not null references pipelines (id) on delete cascade,
  version_number int not null check (version_number > 0),
  message text,
  published_versions jsonb not null,
  reads_tables text[] not null,
  reads_zones jsonb not null,
  archives_files boolean not null,
  created_at timestamptz not null,
  unique (pipeline_id, version_number)
);

create table quality_tests (
  id uuid primary key default gen_random_uuid(),
  pipeline_id uuid not null references pipelines (id) on delete cascade,
  name text not null,
  description text not null default '',
  severity text not null check (severity in ('error', 'warn')),
  s3_path text not null,
  tags text[] not null default '{}',
  remediation text not null default '',
  created_at timestamptz not null default now(),
  unique (pipeline_id, name)
);

create table table_metadata (
  id uuid primary key default gen_random_uuid(),
  namespace text not null,
  layer text not null,
  name text not null,
  description text not null default '',
  owner text,
  column_descriptions jsonb not null default '{}',
  updated_at timestamptz not null default now(),
  unique (namespace, layer, name)
);

create table audit_log (
  id uuid primary key,
  user_id text not null,
  action text not null,
  resource text not null,
  detail jsonb not null default '{}',
  outcome text not null check (outcome in ('success', 'failure')),
  ip text,
  created_at timestamptz not null
);
create index audit_by_time on audit_log (created_at desc, id);
