"""Pure judgements of the account's settings."""
