"""The demo: a year of flights becomes tested tables, through the platform's public interfaces alone."""
