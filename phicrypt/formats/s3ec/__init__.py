"""The formats of the Amazon S3 Encryption Client: pure bytes and metadata, versions 2 and 3."""
