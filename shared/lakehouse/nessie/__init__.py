"""The lakehouse of the distributed stack: branches, contents and the log of merges in Project Nessie.

A branch of the port is one of Nessie's. Closing it makes `failed-<run>-<n>` at its head and then deletes
`run-<run>-<n>` by its hash, so that a commit that comes between is either closed with it or refused. A merge is found
in main's log by the properties of its commit. Nothing is ever forced.
"""
