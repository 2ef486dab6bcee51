variable "name" {
  description = "Name of the alias (as alias/NAME) and of what else is made here."
  type        = string
  default     = "luks-agent"
}

variable "node_role_name" {
  description = "Existing role of the nodes, such as EMR_EC2_DefaultRole. Without it, a role and an instance profile are made."
  type        = string
  default     = null
}

variable "operator_role_arns" {
  description = "Roles that may unwrap data keys by hand when the agent cannot (break-glass)."
  type        = list(string)
  default     = []
}

variable "vpc_endpoint_ids" {
  description = "If given, nodes may use the key only through these interface endpoints of KMS (vpce-...)."
  type        = list(string)
  default     = []
}

variable "multi_region" {
  description = "Make a multi-Region primary key. This cannot be changed later."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of the key and the roles."
  type        = map(string)
  default     = {}
}
