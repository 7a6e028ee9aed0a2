"""Benchmarks of what the swarm does for its user, on data that were measured in the field."""
