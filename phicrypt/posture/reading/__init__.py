"""The account's settings, read."""
