# A place for protected health information that `phicrypt doctor` finds nothing serious to say about:
# a key for client-side encryption, a data bucket, an audit bucket under Object Lock, and a table.
# The trail and its log bucket stand in clinic.cloudformation.yaml; most accounts have one already.
#
#   terraform apply -var tenant=clinic-7 -var writer_role_arn=… -var reader_role_arn=… -var auditor_role_arn=…
#
# The key is for client-side encryption only: its policy denies any use without the encryption context
# pair `tenant`, which AWS services that encrypt at rest do not send.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
  }
}

variable "tenant" {
  type        = string
  description = "The value of the encryption context pair tenant; an opaque id, never a name"
}

variable "writer_role_arn" {
  type        = string
  description = "The role that encrypts"
}

variable "reader_role_arn" {
  type        = string
  description = "The role that decrypts"
}

variable "auditor_role_arn" {
  type        = string
  description = "The role that runs phicrypt doctor"
}

variable "log_bucket" {
  type        = string
  description = "An existing bucket for server access logs"
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  buckets = {
    data  = aws_s3_bucket.data
    audit = aws_s3_bucket.audit
  }
}

resource "aws_kms_key" "phi" {
  description             = "Client-side encryption of protected health information"
  enable_key_rotation     = true
  multi_region            = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.phi_key.json
}

data "aws_iam_policy_document" "phi_key" {
  statement {
    sid    = "Administer"
    effect = "Allow"
    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
    actions = [
      "kms:CancelKeyDeletion", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey", "kms:EnableKeyRotation",
      "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListKeyPolicies",
      "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:ReplicateKey", "kms:RevokeGrant",
      "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource", "kms:UpdateKeyDescription",
    ]
    resources = ["*"]
  }

  statement {
    sid    = "DenyUseWithoutContext"
    effect = "Deny"
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    actions   = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = ["*"]
    condition {
      test     = "Null"
      variable = "kms:EncryptionContext:tenant"
      values   = ["true"]
    }
  }

  statement {
    sid    = "WriterSeals"
    effect = "Allow"
    principals {
      type        = "AWS"
      identifiers = [var.writer_role_arn]
    }
    actions   = ["kms:GenerateDataKey"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "kms:EncryptionContext:tenant"
      values   = [var.tenant]
    }
  }

  statement {
    sid    = "ReaderOpens"
    effect = "Allow"
    principals {
      type        = "AWS"
      identifiers = [var.reader_role_arn]
    }
    actions   = ["kms:Decrypt"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "kms:EncryptionContext:tenant"
      values   = [var.tenant]
    }
  }

  statement {
    sid    = "AuditorReadsSettings"
    effect = "Allow"
    principals {
      type        = "AWS"
      identifiers = [var.auditor_role_arn]
    }
    actions = [
      "kms:DescribeKey", "kms:GetKeyLastUsage", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants",
    ]
    resources = ["*"]
  }
}

resource "aws_s3_account_public_access_block" "all" {
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket" "data" {
  bucket_prefix = "clinic-data-"
}

resource "aws_s3_bucket" "audit" {
  bucket_prefix       = "clinic-audit-"
  object_lock_enabled = true
}

resource "aws_s3_bucket_object_lock_configuration" "audit" {
  bucket = aws_s3_bucket.audit.id
  rule {
    default_retention {
      mode  = "COMPLIANCE"
      years = 6
    }
  }
}

resource "aws_s3_bucket_public_access_block" "buckets" {
  for_each                = local.buckets
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "buckets" {
  for_each = local.buckets
  bucket   = each.value.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "buckets" {
  for_each = local.buckets
  bucket   = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "buckets" {
  for_each = local.buckets
  bucket   = each.value.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
  }
}

resource "aws_s3_bucket_logging" "buckets" {
  for_each      = local.buckets
  bucket        = each.value.id
  target_bucket = var.log_bucket
  target_prefix = "s3/${each.key}/"
}

data "aws_iam_policy_document" "tls_only" {
  for_each = local.buckets
  statement {
    sid    = "DenyWithoutTls"
    effect = "Deny"
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    actions   = ["s3:*"]
    resources = [each.value.arn, "${each.value.arn}/*"]
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "buckets" {
  for_each = local.buckets
  bucket   = each.value.id
  policy   = data.aws_iam_policy_document.tls_only[each.key].json
}

resource "aws_dynamodb_table" "patients" {
  name                        = "patients"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "patient_id"
  deletion_protection_enabled = true

  attribute {
    name = "patient_id"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}

output "phi_key_arn" {
  description = "For KmsKeyring and BranchKeyStore"
  value       = aws_kms_key.phi.arn
}
