"""Starting, finding and stopping the two model servers on this machine."""

EMBEDDED = "embedded"
"""What the pair that comes with the package is called."""
API_KEY = "SPECREASON_API_KEY"
"""The environment variable that the key of servers is taken from, so that no process list shows it."""
