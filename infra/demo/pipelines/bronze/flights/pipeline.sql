-- @description: Every flight as it was delivered, typed; each file is read once
-- @merge_strategy: append_only
select
    * exclude (filename),
    parse_filename(filename) as file
from read_csv(
    {{ landing_zone('flights', only='new') }},
    nullstr = 'NA',
    filename = true,
    columns = {
        'year': 'integer', 'month': 'integer', 'day': 'integer',
        'dep_time': 'integer', 'sched_dep_time': 'integer', 'dep_delay': 'integer',
        'arr_time': 'integer', 'sched_arr_time': 'integer', 'arr_delay': 'integer',
        'carrier': 'varchar', 'flight': 'integer', 'tailnum': 'varchar',
        'origin': 'varchar', 'dest': 'varchar', 'air_time': 'integer', 'distance': 'integer',
        'hour': 'integer', 'minute': 'integer', 'time_hour': 'timestamptz'
    }
)
