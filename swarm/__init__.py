"""The sans-IO core of the swarm: no clock, no socket, no file, no dice of its own.

Beside its packages:

the door        coordinator, commands, config, effects
who is there    registry, retired, group_keys, gateways
what is said    rounds, window, asking, expert_asking, borrowing, labels, operator_frames, server_nodes,
                packages
how it leaves   downlinks, queued, server_queue
the C node      node (with _node, which `_node_build` makes), node_config, receiver
chance          prng
words           words
"""
