"""Stored runs: writing, finding, comparing and re-deciding them."""
