"""The lakehouse of the embedded stack: branches, pointers and the log of merges in PostgreSQL.

It is all in the schema `lakehouse`, which the runner owns. A table on a branch is the branch's own pointer, else
main's as of the entry that the branch was made from. Locks are always taken in one order: main's row, then the
branch's.
"""
