"""The server of the federation."""

from gateway.upstream.server_app import app

__all__ = ["app"]
