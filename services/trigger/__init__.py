"""Owns triggers and their decisions; hears files, ends of runs and removals, and asks for runs."""
