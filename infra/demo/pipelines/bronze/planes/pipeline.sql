-- @description: Planes by their tail number
select *
from read_csv(
    {{ landing_zone('planes') }},
    nullstr = 'NA',
    columns = {
        'tailnum': 'varchar', 'year': 'integer', 'type': 'varchar', 'manufacturer': 'varchar', 'model': 'varchar',
        'engines': 'integer', 'seats': 'integer', 'speed': 'integer', 'engine': 'varchar'
    }
)
