-- What a node answers with, as its last STATUS said (swarm/wire/messages.py, SERVES).
ALTER TABLE status ADD COLUMN serves INTEGER;
