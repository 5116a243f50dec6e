"""How the shipped models are made: tokenizer, data, training, export (see training/README.md)."""
