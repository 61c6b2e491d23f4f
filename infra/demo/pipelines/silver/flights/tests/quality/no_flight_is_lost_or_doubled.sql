-- @severity: error
-- @description: As many rows as bronze has: no join drops or doubles a flight
select delivered.flights as delivered, joined.flights as joined
from (select count(*) as flights from {{ ref('bronze.flights') }}) as delivered,
    (select count(*) as flights from {{ this }}) as joined
where delivered.flights <> joined.flights
