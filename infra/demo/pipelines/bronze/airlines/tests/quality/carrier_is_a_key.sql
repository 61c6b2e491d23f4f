-- @severity: error
-- @description: Each carrier occurs once
select carrier, count(*) as times
from {{ this }}
group by all
having carrier is null or count(*) > 1
