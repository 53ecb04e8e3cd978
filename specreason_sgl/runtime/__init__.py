"""Starting, finding and stopping the two model servers on this machine."""

EMBEDDED = "embedded"
"""What the pair that comes with the package is called."""
