"""Servers and tools measured side by side: `make bench`."""
