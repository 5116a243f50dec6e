"""The OpenAI-compatible side of the API: requests, answers, and what writes them."""
