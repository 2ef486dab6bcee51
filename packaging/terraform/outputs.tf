output "key_arn" {
  description = "What kms.key_id is to be."
  value       = aws_kms_key.this.arn
}

output "alias_arn" {
  description = "ARN of the alias."
  value       = aws_kms_alias.this.arn
}

output "node_role_arn" {
  description = "Role of the nodes."
  value       = local.node_role_arn
}

output "instance_profile_name" {
  description = "Instance profile of the nodes, if it was made here."
  value       = one(aws_iam_instance_profile.node[*].name)
}

output "admin_policy_arn" {
  description = "Policy to attach to those who look after the key."
  value       = aws_iam_policy.admin.arn
}
