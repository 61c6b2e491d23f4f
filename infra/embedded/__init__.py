"""The embedded stack: PostgreSQL, NATS and SeaweedFS from wheels, started, kept alive and stopped with one process."""
