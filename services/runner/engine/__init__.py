"""What knows DuckDB: sessions, statements, types, writing and testing. Phases, branches and merges are elsewhere."""
