-- @description: How late the airlines were, month by month
select
    airline,
    carrier,
    month,
    count(*) as flights,
    count(*) filter (is_cancelled) as cancelled,
    round(avg(dep_delay), 1) as mean_departure_delay,
    round(avg(arr_delay), 1) as mean_arrival_delay,
    round(100.0 * count(*) filter (arr_delay <= 15) / count(*), 1) as percent_on_time
from {{ ref('silver.flights') }}
group by all
order by airline, month
