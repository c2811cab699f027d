"""S3 with boto3's verbs: objects are encrypted before they leave, and authenticated before they are read.

See :class:`phicrypt.s3.client.S3Client`, which ``PhiCrypt.s3()`` makes.
"""
