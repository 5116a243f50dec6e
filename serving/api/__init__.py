"""The HTTP side of the service: routes, their schemas, errors, streams, the playground page."""
