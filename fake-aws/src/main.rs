//! The endpoint as a program, for VMs and scripts.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use fake_aws::{Identity, Key, Options, Server, TestCa};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

/// A fake AWS endpoint for tests: KMS and IMDSv2, with scripted faults and a log of every request
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address for HTTP (repeatable) [default: 127.0.0.1:4566 unless --tls-listen is given]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Address for HTTPS (repeatable)
    #[arg(long, value_name = "ADDRESS:PORT")]
    tls_listen: Vec<SocketAddr>,
    /// PEM file with the server's certificate chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Make a CA and a certificate for --tls-name, and write the CA's certificate here
    #[arg(long, value_name = "FILE", conflicts_with = "tls_cert")]
    tls_ca_out: Option<PathBuf>,
    /// Host name or IP address in the certificate that --tls-ca-out makes (repeatable)
    #[arg(long, value_name = "NAME", default_values = ["localhost", "127.0.0.1"])]
    tls_name: Vec<String>,
    /// Let --tls-ca-out make an expired certificate
    #[arg(long, requires = "tls_ca_out")]
    tls_expired: bool,
    /// Derive the key material from this text, so that it is the same after a restart
    #[arg(long)]
    seed: Option<String>,
    /// Id of the key
    #[arg(long, default_value = Key::DEFAULT_ID)]
    key_id: String,
    /// Alias of the key
    #[arg(long, default_value = "alias/luks-agent")]
    alias: String,
    /// JSON file with a list of more keys: id, aliases, manager, kind, state
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Allow only this KMS action, for example Decrypt (repeatable) [default: all]
    #[arg(long, value_name = "ACTION")]
    allow: Vec<String>,
    /// Region of keys and instance
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Account of keys and instance
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// Instance id in IMDS
    #[arg(long, default_value = "i-1234567890abcdef0")]
    instance_id: String,
    /// Instance type in IMDS
    #[arg(long, default_value = "m5d.xlarge")]
    instance_type: String,
    /// Role of the instance
    #[arg(long, default_value = "luks-agent-node")]
    role: String,
    /// Give the instance no role
    #[arg(long, conflicts_with = "role")]
    no_role: bool,
    /// Entry of the block device mapping in IMDS, for example ebs1=xvdb (repeatable) [default: ami and root, xvda]
    #[arg(long, value_name = "NAME=DEVICE", value_parser = parse_mapping)]
    bdm: Vec<(String, String)>,
    /// Append one line of JSON for each request to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// JSON file with a list of faults
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Write the ports to this file when ready, one per line, HTTP before HTTPS
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

fn parse_mapping(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("expected NAME=DEVICE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

fn read_json<T: DeserializeOwned + Default>(path: Option<&Path>) -> io::Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    serde_json::from_str(&read(path)?).map_err(|error| named(path, error))
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| named(path, error))
}

/// Writes a file and renames it into place, so that a reader never sees half of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_added_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(|error| named(path, error))
}

fn options(args: Args) -> io::Result<Options> {
    let mut listen = args.listen;
    if listen.is_empty() && args.tls_listen.is_empty() {
        listen.push(SocketAddr::from(([127, 0, 0, 1], 4566)));
    }
    let tls = match (&args.tls_cert, &args.tls_key, &args.tls_ca_out) {
        (Some(cert), Some(key), _) => Some(Identity { cert_chain_pem: read(cert)?, key_pem: read(key)? }),
        (_, _, Some(path)) => {
            let ca = TestCa::new()?;
            write_whole(path, ca.pem())?;
            let names = args.tls_name.iter().map(String::as_str).collect::<Vec<_>>();
            Some(if args.tls_expired { ca.expired_identity(&names)? } else { ca.identity(&names)? })
        }
        _ => None,
    };
    let mut keys = vec![Key::new(args.key_id).alias(args.alias)];
    keys.extend(read_json::<Vec<Key>>(args.keys.as_deref())?);
    let defaults = Options::default();
    Ok(Options {
        listen,
        tls_listen: args.tls_listen,
        tls,
        seed: args.seed,
        region: args.region,
        account: args.account,
        keys,
        allow: (!args.allow.is_empty()).then_some(args.allow),
        instance_id: args.instance_id,
        instance_type: args.instance_type,
        role: (!args.no_role).then_some(args.role),
        block_device_mapping: if args.bdm.is_empty() { defaults.block_device_mapping } else { args.bdm },
        log_file: args.log,
        faults: read_json(args.faults.as_deref())?,
        ..defaults
    })
}

async fn run(args: Args) -> io::Result<()> {
    let port_file = args.port_file.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::start(options(args)?).await?;
    if let Some(path) = port_file {
        let ports = server.addresses().iter().map(|address| format!("{}\n", address.port())).collect::<String>();
        write_whole(&path, &ports)?;
    }
    writeln!(io::stdout(), "fake-aws: listening on {}, KMS key {}", server.url(), server.key_arn())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // without stderr the error cannot be reported
            let _written = writeln!(io::stderr(), "fake-aws: {error}");
            ExitCode::FAILURE
        }
    }
}
