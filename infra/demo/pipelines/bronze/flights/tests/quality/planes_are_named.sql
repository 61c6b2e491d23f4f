-- @severity: warn
-- @description: A flight says which plane flew; those that were cancelled early do not
select file, carrier, flight
from {{ this }}
where tailnum is null
