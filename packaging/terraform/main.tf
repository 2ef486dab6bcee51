# The policies of ../iam in Terraform, with the KMS key and the role of the nodes. docs/iam.md explains them.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account_root = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"

  # exactly the operations that the agent calls
  node_actions = [
    "kms:DescribeKey",
    "kms:GenerateDataKey",
    "kms:Decrypt",
  ]

  operator_actions = [
    "kms:DescribeKey",
    "kms:Decrypt",
  ]

  # no use of the key; no kms:CreateGrant, which would amount to use; no kms:ScheduleKeyDeletion, which would lose the data
  admin_actions = [
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
  ]

  alias_actions = [
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:UpdateAlias",
  ]
}

# The key

resource "aws_kms_key" "this" {
  description             = "Wraps the data keys of luks-agent (${var.name})"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  multi_region            = var.multi_region
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = var.tags

  lifecycle {
    # without this key, no volume of any node can be opened again
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}

data "aws_iam_policy_document" "key" {
  # keeps the account from being locked out of its key, but does not let IAM policies grant use of the key
  statement {
    sid       = "IamPoliciesMayAllowAdministrationButNoUse"
    actions   = concat(local.admin_actions, local.alias_actions, ["kms:ScheduleKeyDeletion"])
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = [local.account_root]
    }
  }

  statement {
    sid       = "LuksAgentNodes"
    actions   = local.node_actions
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = [local.node_role_arn]
    }

    dynamic "condition" {
      for_each = length(var.vpc_endpoint_ids) > 0 ? [var.vpc_endpoint_ids] : []

      content {
        test     = "StringEquals"
        variable = "aws:sourceVpce"
        values   = condition.value
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.operator_role_arns) > 0 ? [var.operator_role_arns] : []

    content {
      sid       = "LuksAgentBreakGlass"
      actions   = local.operator_actions
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
}

# The nodes

data "aws_iam_role" "existing" {
  count = var.node_role_name == null ? 0 : 1
  name  = var.node_role_name
}

resource "aws_iam_role" "node" {
  count              = var.node_role_name == null ? 1 : 0
  name               = "${var.name}-node"
  description        = "Nodes whose volumes luks-agent encrypts"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
  tags               = var.tags
}

resource "aws_iam_instance_profile" "node" {
  count = var.node_role_name == null ? 1 : 0
  name  = "${var.name}-node"
  role  = aws_iam_role.node[0].name
}

locals {
  node_role_name = var.node_role_name == null ? aws_iam_role.node[0].name : data.aws_iam_role.existing[0].name
  node_role_arn  = var.node_role_name == null ? aws_iam_role.node[0].arn : data.aws_iam_role.existing[0].arn
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    sid     = "OnlyInstancesAreNodes"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "node" {
  name   = var.name
  role   = local.node_role_name
  policy = data.aws_iam_policy_document.node.json
}

data "aws_iam_policy_document" "node" {
  statement {
    sid       = "LuksAgentNode"
    actions   = local.node_actions
    resources = [aws_kms_key.this.arn]
  }
}

# The administrators: a policy to attach to those who administer the key

resource "aws_iam_policy" "admin" {
  name        = "${var.name}-key-administration"
  description = "Look after the KMS key of luks-agent, without using it"
  policy      = data.aws_iam_policy_document.admin.json
  tags        = var.tags
}

data "aws_iam_policy_document" "admin" {
  statement {
    sid       = "LuksAgentKeyAdministration"
    actions   = local.admin_actions
    resources = [aws_kms_key.this.arn]
  }

  statement {
    sid       = "LuksAgentAlias"
    actions   = local.alias_actions
    resources = [aws_kms_alias.this.arn, aws_kms_key.this.arn]
  }
}
