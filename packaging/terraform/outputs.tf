output "key_arn" {
  description = "ARN of the KMS key: the value for kms.key_id."
  value       = aws_kms_key.this.arn
}

output "alias_arn" {
  description = "ARN of the alias."
  value       = aws_kms_alias.this.arn
}

output "node_role_arn" {
  description = "ARN of the role of the nodes."
  value       = local.node_role_arn
}

output "instance_profile_name" {
  description = "Instance profile of the nodes, if this module created it."
  value       = one(aws_iam_instance_profile.node[*].name)
}

output "admin_policy_arn" {
  description = "ARN of the policy to attach to the administrators of the key."
  value       = aws_iam_policy.admin.arn
}
