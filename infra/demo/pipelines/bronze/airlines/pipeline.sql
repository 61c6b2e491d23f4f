-- @description: Carrier codes and their names
select carrier, name
from read_csv({{ landing_zone('airlines') }}, columns = {'carrier': 'varchar', 'name': 'varchar'})
