-- @description: Airports by their FAA code
select *
from read_csv(
    {{ landing_zone('airports') }},
    nullstr = 'NA',
    columns = {
        'faa': 'varchar', 'name': 'varchar', 'lat': 'double', 'lon': 'double',
        'alt': 'integer', 'tz': 'integer', 'dst': 'varchar', 'tzone': 'varchar'
    }
)
