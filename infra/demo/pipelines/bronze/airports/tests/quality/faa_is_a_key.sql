-- @severity: error
-- @description: Each faa occurs once
select faa, count(*) as times
from {{ this }}
group by all
having faa is null or count(*) > 1
