-- What a dry run would have changed, table by table.
alter table runs add column changes jsonb not null default '[]';

-- The test as it was run, for a look at why it judged so.
alter table quality_results add column compiled_sql text;
