-- @severity: warn
-- @description: Every destination is in the list of airports; four in the Caribbean are not
select dest, count(*) as flights
from {{ this }}
where dest_name is null
group by all
