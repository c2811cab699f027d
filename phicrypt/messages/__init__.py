"""Messages: bytes and streams to and from the AWS Encryption SDK's format."""
