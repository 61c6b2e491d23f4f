-- @severity: error
-- @description: Every carrier has a name
select distinct carrier
from {{ this }}
where airline is null
