//! Where metrics go: to a file for node_exporter, and to clients of a socket passed by systemd.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use listenfd::ListenFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::commands;
use crate::config::Config;
use crate::error::chain;
use crate::report::metrics::{Node, render};
use crate::report::{audited, last};

/// How long a client may take. Clients are served one after the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the page, or why there is none.
fn page(config: &Config) -> Result<String, String> {
    let (rows, keys) = commands::local_status(config).map_err(chain)?;
    // without an interval, what an earlier audit found would grow old
    let audited = config.audit.interval.and_then(|_| audited::read());
    let node = Node { rows: &rows, keys: &keys, runs: &last::all(), audited };
    render(node, Timestamp::now()).map_err(|e| e.to_string())
}

/// Writes the file, if one is configured. A failure is only logged: disks must not wait for metrics.
pub(super) fn write_file(config: &Config) {
    let Some(path) = &config.metrics.textfile else { return };
    let written = page(config).and_then(|text| replace(path, &text).map_err(|e| e.to_string()));
    if let Err(e) = written {
        let dir = path.parent().unwrap_or(path).display();
        tracing::warn!(
            "cannot write metrics.textfile {}: {e}; expected a directory that luks-agent.service may write to: make it, or \
             add ReadWritePaths={dir} to the unit",
            path.display()
        );
    }
}

/// Replaces a file atomically, because node_exporter may read it at any time, and makes it readable for other users than root.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // node_exporter reads only *.prom, so it does not see the file before it is complete
    let mut file = tempfile::Builder::new().prefix(".luks-agent").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    fs::set_permissions(file.path(), Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// A socket passed by systemd.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Returns the socket of `luks-agent-metrics.socket`, if that unit is active.
pub(super) fn socket() -> io::Result<Option<Socket>> {
    let mut handed = ListenFd::from_env();
    if handed.len() == 0 {
        return Ok(None);
    }
    if let Ok(Some(tcp)) = handed.take_tcp_listener(0) {
        tcp.set_nonblocking(true)?;
        return Ok(Some(Socket::Tcp(TcpListener::from_std(tcp)?)));
    }
    let Some(unix) = handed.take_unix_listener(0)? else { return Ok(None) };
    unix.set_nonblocking(true)?;
    Ok(Some(Socket::Unix(UnixListener::from_std(unix)?)))
}

/// Serves clients until the daemon stops.
pub(super) async fn serve(socket: Socket, config: watch::Receiver<Arc<Config>>) {
    loop {
        let accepted = match &socket {
            Socket::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            Socket::Unix(unix) => unix.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
        };
        let config = Arc::clone(&config.borrow());
        match accepted {
            Ok(stream) => answer(stream, &config).await,
            Err(e) => {
                tracing::warn!("cannot accept a connection for metrics: {e}");
                sleep(PATIENCE).await;
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn answer(stream: Box<dyn Stream>, config: &Config) {
    let service = service_fn(async |request: Request<Incoming>| respond(&request, config));
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!("metrics: {e}"),
        Err(_) => tracing::debug!("metrics: no request within {PATIENCE:?}"),
    }
}

fn respond(request: &Request<Incoming>, config: &Config) -> hyper::http::Result<Response<String>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match page(config) {
            Ok(text) => (StatusCode::OK, text),
            Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
        },
        _ => (StatusCode::NOT_FOUND, "not found; the only page is GET /metrics\n".to_owned()),
    };
    Response::builder().status(status).header(CONTENT_TYPE, prometheus::TEXT_FORMAT).body(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_as_a_whole_and_readable_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("luks-agent.prom");
        for text in ["one\n", "two\n"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(Path::new("/nowhere/luks-agent.prom"), "").is_err());
    }
}
