"""Benchmarks of what the swarm does for its user: learning, neighbours' readings, asking for experts."""
