"""The gateway daemon: everything that touches the world (radios, disk, network, the terminal)."""
