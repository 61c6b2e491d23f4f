"""The SQL of the trigger service."""
