-- @description: Flights with the names of airline and airports, the plane, and the weather at departure
select
    make_date(flights.year, flights.month, flights.day) as flight_date,
    flights.month,
    flights.carrier,
    airlines.name as airline,
    flights.flight,
    flights.tailnum,
    planes.manufacturer,
    planes.seats,
    flights.origin,
    origin.name as origin_name,
    flights.dest,
    dest.name as dest_name,
    flights.distance,
    flights.air_time,
    flights.dep_time is null as is_cancelled,
    flights.dep_delay,
    flights.arr_delay,
    weather.temp,
    weather.wind_speed,
    weather.precip,
    weather.visib,
    flights.time_hour
from {{ ref('bronze.flights') }} as flights
left join {{ ref('bronze.airlines') }} as airlines on airlines.carrier = flights.carrier
left join {{ ref('bronze.planes') }} as planes on planes.tailnum = flights.tailnum
left join {{ ref('bronze.airports') }} as origin on origin.faa = flights.origin
left join {{ ref('bronze.airports') }} as dest on dest.faa = flights.dest
left join {{ ref('bronze.weather') }} as weather
    on weather.origin = flights.origin and weather.time_hour = flights.time_hour
