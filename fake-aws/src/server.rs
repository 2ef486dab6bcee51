//! The running endpoint: binds the listeners, serves connections and stops.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::fault::Fault;
use crate::http;
use crate::key::KeyState;
use crate::kms::KmsError;
use crate::log::Request;
use crate::options::Options;
use crate::shared::Shared;
use crate::tls::Identity;

/// A running endpoint. Dropping it stops the endpoint.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    key_arn: String,
    running: Running,
}

enum Running {
    Task(JoinHandle<Infallible>),
    Thread(Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>),
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = (&self.addresses, &self.tls_addresses);
        f.debug_struct("Server").field("addresses", &addresses).finish_non_exhaustive()
    }
}

struct Bound {
    shared: Arc<Shared>,
    listeners: Vec<(TcpListener, Option<TlsAcceptor>)>,
}

impl Bound {
    async fn bind(options: Options) -> io::Result<Self> {
        let acceptor = options.tls.as_ref().map(Identity::acceptor).transpose()?;
        if acceptor.is_none() && !options.tls_listen.is_empty() {
            return Err(io::Error::other("tls_listen needs a certificate in tls"));
        }
        let plain = options.listen.iter().map(|address| (address, None));
        let tls = options.tls_listen.iter().map(|address| (address, acceptor.clone()));
        let mut listeners = Vec::new();
        for (address, acceptor) in plain.chain(tls) {
            let listener = TcpListener::bind(address).await;
            let named = |error: io::Error| io::Error::new(error.kind(), format!("listen on {address}: {error}"));
            listeners.push((listener.map_err(named)?, acceptor));
        }
        Ok(Self { shared: Arc::new(Shared::new(options)?), listeners })
    }

    /// Serves until the future is dropped, which closes the listeners and all connections.
    async fn serve(self) -> Infallible {
        let mut tasks = JoinSet::new();
        for (listener, acceptor) in self.listeners {
            let shared = Arc::clone(&self.shared);
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    if let Ok((stream, source)) = listener.accept().await {
                        connections.spawn(http::connection(Arc::clone(&shared), stream, source, acceptor.clone()));
                    }
                    while connections.try_join_next().is_some() {}
                }
            });
        }
        pending().await
    }
}

impl Server {
    /// Starts the endpoint on the current tokio runtime.
    ///
    /// # Errors
    /// If it cannot listen on an address, open the log file or use the certificate.
    pub async fn start(options: Options) -> io::Result<Self> {
        let first_key = options.keys.first().map(|key| key.id.clone());
        let bound = Bound::bind(options).await?;
        let mut server = Self::new(&bound, first_key)?;
        server.running = Running::Task(tokio::spawn(bound.serve()));
        Ok(server)
    }

    /// Starts the endpoint on its own thread and runtime, for callers that are not async or that block their runtime.
    ///
    /// # Errors
    /// The same as [`Server::start`].
    pub fn start_blocking(options: Options) -> io::Result<Self> {
        let first_key = options.keys.first().map(|key| key.id.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (send, receive) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name("fake-aws".to_owned()).spawn(move || {
            runtime.block_on(async {
                let bound = Bound::bind(options).await;
                let server = bound.as_ref().map(|bound| Self::new(bound, first_key));
                let failed = match server {
                    Ok(server) => send.send(server),
                    Err(error) => send.send(Err(io::Error::new(error.kind(), error.to_string()))),
                };
                if let (Ok(bound), Ok(())) = (bound, failed) {
                    tokio::select! {
                        never = bound.serve() => match never {},
                        _ = stopped => {}
                    }
                }
            });
        })?;
        let mut server = receive.recv().map_err(io::Error::other)??;
        server.running = Running::Thread(Some((stop, thread)));
        Ok(server)
    }

    fn new(bound: &Bound, first_key: Option<String>) -> io::Result<Self> {
        let addresses = |tls: bool| {
            let listeners = bound.listeners.iter().filter(|(_, acceptor)| acceptor.is_some() == tls);
            listeners.map(|(listener, _)| listener.local_addr()).collect::<io::Result<Vec<_>>>()
        };
        Ok(Self {
            shared: Arc::clone(&bound.shared),
            addresses: addresses(false)?,
            tls_addresses: addresses(true)?,
            key_arn: bound.shared.kms.arn(first_key.as_deref().unwrap_or("none")),
            running: Running::Thread(None),
        })
    }

    /// Returns the URL of the first HTTP address, or of the first HTTPS address if there is no HTTP address.
    pub fn url(&self) -> String {
        self.addresses.first().map_or_else(|| self.tls_url(), |address| format!("http://{address}"))
    }

    /// Returns the URL of the first HTTPS address, or `https://` if there is none.
    pub fn tls_url(&self) -> String {
        self.tls_addresses.first().map_or_else(|| "https://".to_owned(), |address| format!("https://{address}"))
    }

    /// Returns the listening addresses: HTTP, then HTTPS, each in the order of the options.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().chain(&self.tls_addresses).copied().collect()
    }

    /// Returns the ARN of the first key.
    pub fn key_arn(&self) -> String {
        self.key_arn.clone()
    }

    /// Returns all requests so far in the order of their answers, including those that a fault was applied to.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.all()
    }

    /// Returns the number of requests for an operation.
    pub fn count(&self, operation: &str) -> usize {
        self.requests().iter().filter(|request| request.operation == operation).count()
    }

    /// Clears the list of requests. The log file keeps them.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// Appends a fault to the list.
    pub fn push_fault(&self, fault: Fault) {
        self.shared.faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.replace(Vec::new());
    }

    /// Sets the state of a key, by any of its names.
    ///
    /// # Errors
    /// If the key does not exist.
    pub fn set_key_state(&self, key: &str, state: KeyState) -> Result<(), KmsError> {
        self.shared.kms.set_state(key, state)
    }

    /// Sets the only actions that the caller may perform; `None` allows all.
    pub fn set_allow(&self, allow: Option<&[&str]>) {
        self.shared.kms.set_allow(allow.map(|actions| actions.iter().map(|&action| action.to_owned()).collect()));
    }

    /// Stops the endpoint and returns once its ports are closed. Dropping a server that runs on the caller's runtime does not wait.
    pub async fn stop(mut self) {
        if let Running::Task(task) = &mut self.running {
            task.abort();
            // an error says that it was cancelled; it never returns by itself
            let _cancelled = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Task(task) => task.abort(),
            Running::Thread(thread) => {
                if let Some((stop, thread)) = thread.take() {
                    // both fail only if the thread panicked, and then it printed the panic
                    let _stopped = stop.send(());
                    let _joined = thread.join();
                }
            }
        }
    }
}
