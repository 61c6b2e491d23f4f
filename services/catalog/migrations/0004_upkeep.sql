-- Who looks after what: a job, of one table or of all, is one runner's at a time.
create table upkeep (
  job text not null,
  -- The table, or '' for a job that is about all of them.
  subject text not null,
  holder text not null,
  -- From here on anybody may take the job.
  held_until timestamptz not null,
  done_at timestamptz,
  primary key (job, subject)
);
