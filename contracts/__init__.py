"""What the services say to each other: events and queries, each bound to its subject."""
