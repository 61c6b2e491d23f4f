-- The run that this one repeats. What it repeats of a draft is what was pinned then, whatever was published since.
alter table runs add column retry_of uuid;
