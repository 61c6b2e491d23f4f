-- @severity: error
-- @description: Each tailnum occurs once
select tailnum, count(*) as times
from {{ this }}
group by all
having tailnum is null or count(*) > 1
