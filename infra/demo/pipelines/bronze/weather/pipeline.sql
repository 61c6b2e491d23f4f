-- @description: The weather at each airport of departure, hour by hour
select *
from read_csv(
    {{ landing_zone('weather') }},
    nullstr = 'NA',
    columns = {
        'origin': 'varchar', 'year': 'integer', 'month': 'integer', 'day': 'integer', 'hour': 'integer',
        'temp': 'double', 'dewp': 'double', 'humid': 'double', 'wind_dir': 'integer', 'wind_speed': 'double',
        'wind_gust': 'double', 'precip': 'double', 'pressure': 'double', 'visib': 'double', 'time_hour': 'timestamptz'
    }
)
