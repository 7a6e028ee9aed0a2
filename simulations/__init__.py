"""The simulated farm: weather, nodes, radio and world around the unchanged swarm and firmware."""
