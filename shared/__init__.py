"""How any service talks to the outside: settings, bus, outbox, database, object store, lakehouse, errors, logs."""
