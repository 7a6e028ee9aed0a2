"""Answering together: whom to ask, and how answers become one."""
