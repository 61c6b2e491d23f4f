-- The query of a version, tables and landing zones under their whole names: what its columns come from is read from it.
-- Null for Python, and for versions that are older than this.
alter table pipeline_versions add column query_sql text;
