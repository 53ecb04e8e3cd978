"""Batch evaluation: several methods on the same problems, resumable, with statistics that state their uncertainty."""
