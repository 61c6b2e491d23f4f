-- Which namespace of its name a zone was made in; not known of zones that are older than this.
alter table landing_zones add column namespace_id uuid;

-- Namespaces whose end was heard: a zone that is still on its way to one of them is not made.
create table removed_namespaces (
  namespace_id uuid primary key,
  removed_at timestamptz not null default now()
);
