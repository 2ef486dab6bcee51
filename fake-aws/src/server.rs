//! The running endpoint: its state, its listeners and their end.

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

use crate::Options;
use crate::fault::{Fault, Faults};
use crate::http;
use crate::imds::Imds;
use crate::key::{KeyState, Root};
use crate::kms::{Kms, KmsError};
use crate::log::{Log, Request};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) kms: Kms,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    pub(crate) imds: Imds,
}

impl Shared {
    fn new(options: Options) -> io::Result<Self> {
        let principal = match &options.role {
            Some(role) => format!("sts::{}:assumed-role/{role}/{}", options.account, options.instance_id),
            None => format!("iam::{}:user/nobody", options.account),
        };
        let root = Root::new(options.seed.as_deref()).map_err(|_| io::Error::other("no random numbers"))?;
        let faults = Faults::default();
        faults.replace(options.faults.clone());
        Ok(Self {
            kms: Kms::new(
                &options.region,
                &options.account,
                format!("arn:aws:{principal}"),
                root,
                options.keys.clone(),
                options.allow.clone(),
            ),
            log: Log::open(options.log_file.as_deref())?,
            faults,
            imds: Imds::new(options),
        })
    }
}

/// A running endpoint; it stops when this is dropped.
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
        let acceptor = options.tls.as_ref().map(crate::Identity::acceptor).transpose()?;
        if acceptor.is_none() && !options.tls_listen.is_empty() {
            return Err(io::Error::other("an address for TLS but no certificate"));
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

    /// Never ends; dropping it drops the listeners and every connection.
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
    /// Starts on the current tokio runtime.
    ///
    /// # Errors
    /// If an address cannot be listened on, a file not opened or the certificate not used.
    pub async fn start(options: Options) -> io::Result<Self> {
        let first_key = options.keys.first().map(|key| key.id.clone());
        let bound = Bound::bind(options).await?;
        let mut server = Self::new(&bound, first_key)?;
        server.running = Running::Task(tokio::spawn(bound.serve()));
        Ok(server)
    }

    /// Starts on a thread and runtime of its own, for callers that are not async or keep their runtime busy.
    ///
    /// # Errors
    /// As [`Server::start`].
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

    /// The URL of the first HTTP address, or the first HTTPS address if there is no other.
    pub fn url(&self) -> String {
        self.addresses.first().map_or_else(|| self.tls_url(), |address| format!("http://{address}"))
    }

    /// The URL of the first HTTPS address; an address without a port if there is none.
    pub fn tls_url(&self) -> String {
        self.tls_addresses.first().map_or_else(|| "https://".to_owned(), |address| format!("https://{address}"))
    }

    /// The addresses listened on: first HTTP, then HTTPS, each in the order of the options.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().chain(&self.tls_addresses).copied().collect()
    }

    /// The ARN of the first key.
    pub fn key_arn(&self) -> String {
        self.key_arn.clone()
    }

    /// Every request so far, faulted ones too, in the order of their answers.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.all()
    }

    /// How many requests named this operation.
    pub fn count(&self, operation: &str) -> usize {
        self.requests().iter().filter(|request| request.operation == operation).count()
    }

    /// Forgets the requests so far; the log file keeps them.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// Adds a fault after those that are there.
    pub fn push_fault(&self, fault: Fault) {
        self.shared.faults.push(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.replace(Vec::new());
    }

    /// Sets the state of a key, by any of its names.
    ///
    /// # Errors
    /// If there is no such key.
    pub fn set_key_state(&self, key: &str, state: KeyState) -> Result<(), KmsError> {
        self.shared.kms.set_state(key, state)
    }

    /// Sets the only actions that the caller may do; none for all.
    pub fn set_allow(&self, allow: Option<&[&str]>) {
        self.shared.kms.set_allow(allow.map(|actions| actions.iter().map(|&action| action.to_owned()).collect()));
    }

    /// Stops and returns when the ports are closed. (A drop only begins that, if the server runs on the caller's runtime.)
    pub async fn stop(mut self) {
        if let Running::Task(task) = &mut self.running {
            task.abort();
            // always cancelled: it never ends by itself
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
                    // neither can fail but by a panic of the thread, which has been printed
                    let _stopped = stop.send(());
                    let _joined = thread.join();
                }
            }
        }
    }
}
