"""Formats that AWS publishes, as pure functions between bytes and values: no AWS, clock or network."""
