-- @severity: warn
-- @description: No airline is half an hour late on average, in any month
select airline, month, mean_arrival_delay
from {{ this }}
where mean_arrival_delay > 30
