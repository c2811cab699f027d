"""Keyrings, caches and the branch key store: what knows keys, and nothing of formats."""
