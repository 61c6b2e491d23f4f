-- @severity: error
-- @description: A flight departs once: the same carrier, number, origin and hour occur in one row
select time_hour, carrier, flight, origin, count(*) as times
from {{ this }}
group by all
having count(*) > 1
