"""Batch evaluation: several methods on the same problems, resumable, with honest statistics."""
