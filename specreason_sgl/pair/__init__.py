"""The embedded pair: what it knows, how it is trained, its weights."""
