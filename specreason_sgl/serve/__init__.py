"""The pair as an OpenAI-compatible endpoint, and the harness's own surface beside it."""

HEARTBEAT_S = 15.0
"""After so many silent seconds a stream sends a comment, so that nothing on the way takes it for dead."""
