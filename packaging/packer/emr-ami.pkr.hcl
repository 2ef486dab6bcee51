# A custom AMI for EMR 7: Amazon Linux 2023 with luks-agent installed, configured and enabled, on an encrypted boot volume.
# docs/emr-ami.md says how to use it.

variable "package" {
  type        = string
  description = "Path of the package, such as target/packages/luks-agent-0.1.0-1.x86_64.rpm. Its architecture must match the image."
}

variable "config" {
  type        = string
  description = "Path of the agent's configuration for every node: a copy of packaging/packer/luks-agent.toml with your KMS key."
}

variable "architecture" {
  type        = string
  description = "Architecture of the image and the package: x86_64 or arm64."
  default     = "x86_64"

  validation {
    condition     = var.architecture == "x86_64" || var.architecture == "arm64"
    error_message = "The architecture must be x86_64 or arm64."
  }
}

variable "region" {
  type        = string
  description = "Region of the image. EMR accepts custom AMIs only from the Region of the cluster."
}

variable "subnet_id" {
  type        = string
  description = "Subnet to build in, which must reach the repositories of Amazon Linux. Empty for the default VPC."
  default     = ""
}

variable "boot_kms_key_id" {
  type        = string
  description = "KMS key of the boot volume, not of the agent. Empty for the account's default EBS key."
  default     = ""
}

locals {
  made = formatdate("YYYYMMDD-hhmm", timestamp())
  # only for the build, not for the nodes: any small type of the architecture works
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

  # the standard image, which EMR requires, not the minimal or the ECS image
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

  # Only the boot volume: EMR does not support images with several volumes. EMR 6.10 and later require 15 GiB or more.
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

  # the SSH key of the build must not stay in the image
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
