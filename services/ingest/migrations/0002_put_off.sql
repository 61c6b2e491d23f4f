-- What the store refused to archive or to delete: how often it was tried, and from when on it is tried again.
alter table landing_files
  add column archive_tries integer not null default 0,
  add column archive_again_at timestamptz;
alter table store_deletions
  add column tries integer not null default 0,
  add column again_at timestamptz;

create index landing_files_leaving on landing_files (zone_id) where archiving_at is not null;
