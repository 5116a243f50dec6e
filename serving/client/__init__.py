"""The client side of the service: a typed client, a server process of one's own, a load test."""

from __future__ import annotations

from serving.client.answers import Answer, APIError, Pieces, events
from serving.client.client import Client
from serving.client.process import ServerError, ServerProcess

__all__ = ["APIError", "Answer", "Client", "Pieces", "ServerError", "ServerProcess", "events"]
