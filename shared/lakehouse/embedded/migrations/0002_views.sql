-- A name stands for a table or for a view; what was there before are tables.
alter table pointers add column kind text not null default 'table' check (kind in ('table', 'view'));
