"""Servers and services die, and nothing is lost. A package, so that its platform ends with its last test."""
