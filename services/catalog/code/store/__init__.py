"""The SQL of namespaces, pipelines, their versions and tests, what is said about tables, and the audit log."""
