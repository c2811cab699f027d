"""Stored objects opened: whole, by ranges, as streams."""
