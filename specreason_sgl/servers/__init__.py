"""Starting, finding and stopping the two model servers on this machine."""

EMBEDDED = "embedded"
"""The name of the pair that comes with the package."""
API_KEY = "SPECREASON_API_KEY"
"""The environment variable that holds the servers' API key, so that no process list shows the key."""
SERVE_KEY = "SPECREASON_SERVE_KEY"
"""Likewise for the key of the endpoint over the pair."""
SERVE_PORT = 8711
"""The port of the endpoint, if it is free and no other is asked for."""
