# A custom AMI for EMR 7: Amazon Linux 2023 with luks-agent installed, configured and enabled, on an encrypted boot volume.
# docs/emr-ami.md says how to use it.

variable "package" {
  type        = string
  description = "The package, such as target/packages/luks-agent-0.1.0-1.x86_64.rpm; its architecture is that of the image."
}

variable "config" {
  type        = string
  description = "Configuration of the agent on every node: a copy of packaging/packer/luks-agent.toml with your key."
}

variable "architecture" {
  type        = string
  description = "Architecture of image and package: x86_64 or arm64."
  default     = "x86_64"

  validation {
    condition     = var.architecture == "x86_64" || var.architecture == "arm64"
    error_message = "The architecture must be x86_64 or arm64."
  }
}

variable "region" {
  type        = string
  description = "Region of the image; EMR takes custom AMIs from the Region of the cluster alone."
}

variable "subnet_id" {
  type        = string
  description = "Subnet to build in, with a way out to Amazon Linux's repositories; empty for the default VPC."
  default     = ""
}

variable "boot_kms_key_id" {
  type        = string
  description = "KMS key of the boot volume, not the agent's; empty for the account's default key for EBS."
  default     = ""
}

locals {
  made = formatdate("YYYYMMDD-hhmm", timestamp())
  # not that of the nodes: any small one of the architecture builds it
  instance_type = {
    x86_64 = "m5.large"
    arm64  = "m6g.large"
  }
}

source "amazon-ebs" "emr" {
  region        = var.region
  subnet_id     = var.subnet_id
  instance_type = local.instance_type[var.architecture]
  ssh_username  = "ec2-user"

  ami_name        = "luks-agent-emr-${var.architecture}-${local.made}"
  ami_description = "Amazon Linux 2023 for EMR 7, with luks-agent"

  # the standard image, neither the minimal one nor that for ECS: EMR wants the former
  source_ami_filter {
    owners      = ["amazon"]
    most_recent = true

    filters = {
      name                = "al2023-ami-2023.*-kernel-6.1-${var.architecture}"
      architecture        = var.architecture
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  # The boot volume, and no other: EMR does not support images with several. EMR 6.10 and later want 15 GiB or more.
  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 20
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    encrypted             = true
    kms_key_id            = var.boot_kms_key_id
    delete_on_termination = true
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # the key pair of the build does not stay in the image
  ssh_clear_authorized_keys = true

  tags = {
    Name    = "luks-agent-emr-${var.architecture}-${local.made}"
    BaseAmi = "{{ .SourceAMIName }}"
  }
}

build {
  sources = ["source.amazon-ebs.emr"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/luks-agent.rpm"
  }

  provisioner "file" {
    source      = var.config
    destination = "/tmp/luks-agent.toml"
  }

  provisioner "shell" {
    script          = "${path.root}/setup.sh"
    execute_command = "sudo bash {{ .Path }} /tmp/luks-agent.rpm /tmp/luks-agent.toml"
  }
}
