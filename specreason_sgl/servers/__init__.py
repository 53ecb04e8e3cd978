"""Starting, finding and stopping the two model servers on this machine."""

EMBEDDED = "embedded"
"""The name of the pair that comes with the package."""
API_KEY = "SPECREASON_API_KEY"
"""The environment variable that holds the servers' API key, so that no process list shows the key."""
