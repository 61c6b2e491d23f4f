"""Query: answers SQL over the tables on main, and shows the tables and their columns.

Owns nothing durable. Hears `table.changed`; answers queries, table lists, schemas and previews.
"""
