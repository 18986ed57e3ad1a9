"""The operator's console, served by the worker's web server under ``/console/``; read-only."""

from stream_app.console.pages import serve

__all__ = ["serve"]
