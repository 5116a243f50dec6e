"""The engine of the service: one thread that decodes many sequences at once."""
