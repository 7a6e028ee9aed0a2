"""The client of a cell."""

from gateway.upstream.client_app import app

__all__ = ["app"]
