"""Bytes on the air and back: LoRaWAN frames and the application frames inside them."""
