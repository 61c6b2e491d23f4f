-- @severity: error
-- @description: One observation an hour and airport: a second one would double flights that join it
select origin, time_hour, count(*) as times
from {{ this }}
group by all
having count(*) > 1
