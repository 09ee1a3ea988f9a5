# Two roles. A node reads and writes exactly the prefixes of the jobs. The head may besides start and end machines
# of this cluster, and hand them the node's role.

data "aws_caller_identity" "here" {}

data "aws_iam_policy_document" "machines_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "storage" {
  statement {
    sid       = "ListOwnPrefixes"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [for prefix in concat(var.data_prefixes, var.run_prefixes) : "${prefix}*"]
    }
  }

  statement {
    sid       = "FindRegion"
    actions   = ["s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.store.arn]
  }

  statement {
    sid       = "ReadWriteOwnPrefixes"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [for prefix in concat(var.data_prefixes, var.run_prefixes) : "${aws_s3_bucket.store.arn}/${prefix}*"]
  }
}

data "aws_iam_policy_document" "head" {
  statement {
    sid = "SeeMachines"
    actions = [
      "ec2:DescribeImages",
      "ec2:DescribeInstances",
      "ec2:DescribeInstanceStatus",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeKeyPairs",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "StartInOwnSubnets"
    actions   = ["ec2:RunInstances"]
    resources = [aws_subnet.private.arn, aws_security_group.cluster.arn]
  }

  statement {
    sid     = "StartMachines"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:aws:ec2:${var.region}::image/*",
      "arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:instance/*",
      "arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:key-pair/*",
      "arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:network-interface/*",
      "arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:placement-group/${var.name}",
      "arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:volume/*",
    ]
  }

  statement {
    sid       = "NameMachines"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:*/*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }

  statement {
    sid       = "EndAndRenameOwnMachines"
    actions   = ["ec2:TerminateInstances", "ec2:CreateTags"]
    resources = ["arn:aws:ec2:${var.region}:${data.aws_caller_identity.here.account_id}:instance/*"]

    condition {
      test     = "StringLike"
      variable = "aws:ResourceTag/ray-cluster-name"
      values   = ["${var.name}-*"]
    }
  }

  statement {
    sid       = "FindImage"
    actions   = ["ssm:GetParameters"]
    resources = ["arn:aws:ssm:${var.region}::parameter/aws/service/deeplearning/*"]
  }

  statement {
    sid       = "HandOverNodeRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.node.arn]
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = data.aws_iam_policy_document.machines_assume.json
}

resource "aws_iam_role_policy" "node_storage" {
  name   = "storage"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.storage.json
}

resource "aws_iam_instance_profile" "node" {
  name = aws_iam_role.node.name
  role = aws_iam_role.node.name
}

resource "aws_iam_role" "head" {
  name               = "${var.name}-head"
  assume_role_policy = data.aws_iam_policy_document.machines_assume.json
}

resource "aws_iam_role_policy" "head_storage" {
  name   = "storage"
  role   = aws_iam_role.head.id
  policy = data.aws_iam_policy_document.storage.json
}

resource "aws_iam_role_policy" "head_machines" {
  name   = "machines"
  role   = aws_iam_role.head.id
  policy = data.aws_iam_policy_document.head.json
}

resource "aws_iam_instance_profile" "head" {
  name = aws_iam_role.head.name
  role = aws_iam_role.head.name
}
