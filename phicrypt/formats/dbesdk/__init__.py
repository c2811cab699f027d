"""Encrypted DynamoDB items as AWS's Database Encryption SDK writes them: bytes only, no AWS."""
