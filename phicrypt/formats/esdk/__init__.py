"""AWS Encryption SDK messages: header, body and footer (``data-format/`` of the specification)."""
