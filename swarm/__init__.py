"""The sans-IO core of the swarm: no clock, no socket, no file, no dice of its own."""
