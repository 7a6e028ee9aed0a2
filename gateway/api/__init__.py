"""The daemon's HTTP face: JSON, server-sent events, and the page."""
