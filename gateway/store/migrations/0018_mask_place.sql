-- A node's place in a masking group as it was provisioned, so that no other can claim it (swarm/federation/round.py).

ALTER TABLE node ADD COLUMN mask_place TEXT;
