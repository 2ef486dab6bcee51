variable "name" {
  description = "Name of the alias (alias/NAME) and of the other resources of this module."
  type        = string
  default     = "luks-agent"
}

variable "node_role_name" {
  description = "Existing role of the nodes, such as EMR_EC2_DefaultRole. If null, the module creates a role and an instance profile."
  type        = string
  default     = null
}

variable "operator_role_arns" {
  description = "ARNs of roles that may unwrap data keys by hand if the agent cannot (break-glass)."
  type        = list(string)
  default     = []
}

variable "vpc_endpoint_ids" {
  description = "If not empty, nodes may use the key only through these KMS interface endpoints (vpce-...)."
  type        = list(string)
  default     = []
}

variable "multi_region" {
  description = "Create a multi-Region primary key. This cannot be changed later."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of the key and the roles."
  type        = map(string)
  default     = {}
}
