"""Landing zones and their files: says what landed, fixes which files a run reads, archives what was read."""
