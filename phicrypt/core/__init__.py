"""Values and primitives that know nobody: no AWS, no clock, no network."""
