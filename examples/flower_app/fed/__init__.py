"""A Flower app whose clients are the nodes of a LoRa cell."""
