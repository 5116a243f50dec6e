"""The LLM service of lessons 06 and 09: one process, one model, batching at every step.

    python -m serving

A request goes from `app` (HTTP) through `service` (validation, queue) to `engine` (the
one thread that owns the model) and comes back as text or as a stream of pieces.
"""
