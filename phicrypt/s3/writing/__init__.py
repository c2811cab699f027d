"""Objects sealed and sent: at once, in parts, as copies."""
