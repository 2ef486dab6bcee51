//! Proxies from the environment: calls to KMS go through them, and questions to IMDS never do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fake_aws::{Server, TestCa};
use luks_agent::kms::{AwsKms, KeyService};

use super::{bare, block_on, in_child, quick};

/// A proxy that forwards encrypted connections, and notes the first line of every request.
struct Proxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = proxy.requests.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let requests = requests.clone();
                thread::spawn(move || serve(client, &requests));
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut client: TcpStream, requests: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default();
    requests.lock().unwrap().push(line.to_owned());
    let Some(target) = line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    };
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        io::copy(&mut from_client, &mut to_server).ok();
        to_server.shutdown(Shutdown::Write)
    });
    io::copy(&mut server, &mut client).ok();
    client.shutdown(Shutdown::Write).ok();
    up.join().unwrap()
}

/// IMDS over HTTP and KMS over HTTPS, as on an instance.
fn instance(ca: &TestCa) -> Server {
    Server::start_blocking(fake_aws::Options {
        tls_listen: vec![([127, 0, 0, 1], 0).into()],
        tls: Some(ca.identity(&["127.0.0.1"]).unwrap()),
        ..fake_aws::Options::default()
    })
    .unwrap()
}

/// Makes a data key on an instance whose programs have all variables of proxies. Returns the port of KMS and what the proxy was asked.
fn through_a_proxy(test: &str, no_proxy: &str) -> Option<(u16, Vec<String>)> {
    let ca = TestCa::new().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let (server, proxy) = (instance(&ca), Proxy::start());
    let mut env = vec![
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url()),
        ("AWS_ENDPOINT_URL_KMS", server.tls_url()),
        ("SSL_CERT_FILE", file.path().display().to_string()),
        ("NO_PROXY", no_proxy.to_owned()),
    ];
    env.extend(["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "http_proxy"].map(|name| (name, proxy.url())));
    if in_child(test, &env) {
        block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect_with(&config, quick()).await.unwrap().generate().await.unwrap();
        });
        return None;
    }
    let asked = |operation: &str| server.requests().iter().filter(|r| r.operation.starts_with(operation)).count();
    assert!(asked("imds:") > 0 && asked("GenerateDataKey") == 1, "{:?}", server.requests());
    let port = server.tls_url().rsplit(':').next().unwrap().parse().unwrap();
    let requests = proxy.requests.lock().unwrap().clone();
    Some((port, requests))
}

#[test]
fn kms_is_called_through_the_proxy_and_imds_is_not() {
    if let Some((port, requests)) = through_a_proxy("proxies::kms_is_called_through_the_proxy_and_imds_is_not", "") {
        let tunnel = format!("CONNECT 127.0.0.1:{port} HTTP/1.1");
        assert!(!requests.is_empty() && requests.iter().all(|line| *line == tunnel), "{requests:?}");
    }
}

/// The proxy would read the data key. IMDS and KMS are one server here.
#[test]
fn kms_without_tls_is_called_through_no_proxy() {
    let (server, proxy) = (Server::start_blocking(fake_aws::Options::default()).unwrap(), Proxy::start());
    let mut env = vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url()), ("AWS_ENDPOINT_URL_KMS", server.url())];
    env.extend(["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "http_proxy"].map(|name| (name, proxy.url())));
    if in_child("proxies::kms_without_tls_is_called_through_no_proxy", &env) {
        block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect_with(&config, quick()).await.unwrap().generate().await.unwrap();
        });
        return;
    }
    assert_eq!(server.requests().iter().filter(|r| r.operation == "GenerateDataKey").count(), 1);
    assert_eq!(*proxy.requests.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn hosts_that_need_no_proxy_are_called_without_it() {
    let test = "proxies::hosts_that_need_no_proxy_are_called_without_it";
    if let Some((_, requests)) = through_a_proxy(test, "127.0.0.1,.example") {
        assert_eq!(requests, Vec::<String>::new());
    }
}
