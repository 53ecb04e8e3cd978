"""A model server as an SGLang backend: requests, the handshake, and waiting for a server that does not answer."""
