"""Gateway: the HTTP API. Turns requests into queries and answers into JSON, and streams events, logs and files.

Owns the API tokens. Says `audit.recorded`; hears, for whoever streams them, the events of all services.
"""
