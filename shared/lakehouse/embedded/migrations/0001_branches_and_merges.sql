-- Iceberg namespaces, which are on no branch: `ns` and `ns.layer`.
create table namespaces (
  name text primary key
);

create table branches (
  name text primary key,
  -- The entry of the log that the branch was made from; for main, the newest entry.
  base_seq bigint not null,
  created_at timestamptz not null default now(),
  -- From here on nothing is committed to the branch and it is not merged.
  closed_at timestamptz
);

insert into branches (name, base_seq) values ('main', 0);

-- The log of merges: seq is taken under the lock on main's row, so it is the order of commits, without gaps.
create table merges (
  seq bigint primary key,
  -- Null for maintenance and for tables that were dropped by hand.
  run_id uuid unique,
  attempt integer,
  at timestamptz not null
);

-- Where a table's metadata is: one row for each table that a branch changed, and on main one for each merge of it.
create table pointers (
  branch text not null references branches on delete cascade,
  table_name text not null,
  -- On main the entry of the log; on a branch the entry that the branch was made from.
  seq bigint not null,
  -- Null where the table was dropped.
  location text,
  primary key (branch, table_name, seq)
);

create index pointers_of_a_merge on pointers (seq) where branch = 'main';

-- Those who read the lakehouse may exist already or be made later; set-up grants to the latter by default.
do $$
declare
  reader text;
begin
  for reader in select rolname from pg_roles where rolname in ('catalog', 'query') loop
    execute format('grant usage on schema lakehouse to %I', reader);
    execute format('grant select on namespaces, branches, merges, pointers to %I', reader);
  end loop;
end
$$;
