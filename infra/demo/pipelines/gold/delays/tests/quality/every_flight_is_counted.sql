-- @severity: error
-- @description: The counts add up to the flights in silver
select counted.flights as counted, known.flights as known
from (select sum(flights) as flights from {{ this }}) as counted,
    (select count(*) as flights from {{ ref('silver.flights') }}) as known
where counted.flights is distinct from known.flights
