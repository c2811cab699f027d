"""The audit trail read back: verified, joined with CloudTrail, asked and reported."""
