//! An EC2 node: a machine with instance store and EBS volumes, and the AWS it sees.

use std::net::SocketAddr;

use fake_aws::{Options, Server};

use super::qemu::{AWS_ADDRESS, MIB, Machine};

pub const STORE_1: &str = "AWS1A2B3C4D5E6F7890A";
pub const STORE_2: &str = "AWS2A2B3C4D5E6F7890B";
pub const EBS_1: &str = "vol0a1b2c3d4e5f60718";
pub const EBS_2: &str = "vol0f9e8d7c6b5a49382";
/// Not attached to a new node; sorts between the other two.
pub const EBS_LATER: &str = "vol0b2c3d4e5f6071829";

/// A header of 16 MiB and the 300 MiB that `mkfs.xfs` needs. Under software emulation every MiB is felt.
pub const VOLUME: u64 = 320 * MIB;

/// A node with two instance store and two EBS volumes.
pub fn node(name: &str) -> Machine {
    let volumes = [STORE_1, STORE_2, EBS_1, EBS_2];
    volumes.iter().fold(Machine::new(name), |vm, serial| vm.nvme(serial, VOLUME))
}

/// KMS and instance metadata, on a port of the kernel's choice, with keys that survive a restart.
pub fn aws() -> Server {
    Server::start_blocking(Options { seed: Some("machine tier".to_owned()), ..Options::default() }).unwrap()
}

/// The same node with the agent installed, which sees `aws` at the address of the instance metadata service.
pub fn node_with_agent(name: &str, aws: &Server) -> Machine {
    let address: SocketAddr = aws.addresses()[0];
    node(name).tool(super::program("luks-agent")).forward(80, address)
}

/// What a node needs beside the defaults: the key, and here the endpoint. Region and credentials come from the instance
/// metadata service.
pub fn config(aws: &Server) -> String {
    format!("[kms]\nkey_id = \"{}\"\nendpoint_url = \"http://{AWS_ADDRESS}\"\n", aws.key_arn())
}
