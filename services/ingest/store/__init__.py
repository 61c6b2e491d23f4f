"""What ingest keeps in its schema, a module for each kind of thing, a function for each query."""
