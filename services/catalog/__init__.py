"""Catalog owns namespaces, pipelines with their code, and runs: it decides which run may start, and how each ended."""
