"""Container images: of the services, and of the servers, made from what the stacks on one machine are made from."""
