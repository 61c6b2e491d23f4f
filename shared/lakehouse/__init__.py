"""Tables and their branches: how they are made on a branch, judged there, and merged to main all at once."""
