"""A model server as an SGLang backend, and the patience with one that fails."""
