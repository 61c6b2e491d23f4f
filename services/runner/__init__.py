"""Works on runs: takes `run.queued`, claims attempts at catalog, writes on a branch, tests it, merges it, reports.

Owns nothing durable but the lakehouse. Hears `run.cancel`; says `attempt.finished`, `run.progressed` and
`log.run.<id>`; answers whether a pipeline is valid.
"""
