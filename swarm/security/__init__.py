"""Cryptography of the air interface; nothing here knows a frame's layout beyond its bytes."""
