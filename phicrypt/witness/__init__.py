"""What CloudTrail witnesses of an audit log: anchors of its chain, made by calls of KMS."""
