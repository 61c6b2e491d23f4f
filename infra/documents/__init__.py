"""What is written from the code: golden schemas, AsyncAPI documents, the event table, the permissions on NATS."""
