"""The commands of `swarm`: one module per noun; what is slow to import is imported where it is used."""
