"""Catalog owns namespaces, pipelines with their code, and runs: it decides which run may start, and how each ended.

It also says which runner looks after what, so that no two do at once.
"""
