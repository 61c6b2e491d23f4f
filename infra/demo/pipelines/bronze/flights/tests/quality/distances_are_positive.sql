-- @severity: error
-- @description: Every flight covers some distance
-- @remediation: Ask for the file again, and upload it under the same name
select file, carrier, flight, distance
from {{ this }}
where distance is null or distance <= 0
