"""The servers that stacks are made of, each started, kept alive and stopped with one process."""
