"""Watching a solve: live, again later, side by side, or as a file. Everything here only reads events."""
