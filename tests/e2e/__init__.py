"""The platform as its users meet it. A package, so that its platform ends with its last test."""
