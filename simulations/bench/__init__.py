"""Benchmarks of what the swarm does for its user: learning modes on learning tasks, neighbours' readings."""
