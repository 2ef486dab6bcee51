//! The listener: HTTP in and out, where faults meet answers.

use std::convert::Infallible;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::fault::{Effect, Fault, Faults};
use crate::imds::{self, Imds};
use crate::key::{KeyState, Root};
use crate::kms::{Kms, KmsError};
use crate::log::{Log, Request};
use crate::{Options, control};

const KMS_TARGET: &str = "TrentService.";
const AWS_JSON: &str = "application/x-amz-json-1.1";
const REQUEST_BODY_LIMIT: usize = 1 << 20;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) kms: Kms,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    imds: Imds,
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
                        connections.spawn(connection(Arc::clone(&shared), stream, source, acceptor.clone()));
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

async fn connection(shared: Arc<Shared>, stream: TcpStream, source: SocketAddr, acceptor: Option<TlsAcceptor>) {
    match acceptor {
        None => serve_connection(shared, stream, source, false, |stream| stream).await,
        Some(acceptor) => {
            // a caller that does not trust us goes away here
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_connection(shared, stream, source, true, |stream| stream.get_ref().0).await;
            }
        }
    }
}

async fn serve_connection<S>(shared: Arc<Shared>, stream: S, source: SocketAddr, tls: bool, tcp: fn(&S) -> &TcpStream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let reset = AtomicBool::new(false);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (shared, reset) = (&shared, &reset);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, REQUEST_BODY_LIMIT).collect().await.map_err(io::Error::other)?.to_bytes();
            if let Some(path) = parts.uri.path().strip_prefix("/_fake/") {
                let (status, answer) = control::call(shared, parts.method.as_str(), path, &body);
                return Reply::new(status, "application/json", answer.to_string()).send(None);
            }
            answer(shared, &parts, &body, source, tls, reset).await
        })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // an error is the caller's going away or a fault's end of the connection
    let _result = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if reset.load(Ordering::Relaxed) {
        let _result = tcp(connection.into_parts().io.inner()).set_zero_linger();
    }
}

/// An answer before it meets a fault.
struct Reply {
    status: u16,
    content_type: String,
    body: String,
    ttl: Option<u64>,
    error: Option<String>,
}

impl Reply {
    fn new(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self { status, content_type: content_type.to_owned(), body: body.into(), ttl: None, error: None }
    }

    fn kms(answer: Result<Value, KmsError>) -> Self {
        match answer {
            Ok(answer) => Self::new(200, AWS_JSON, answer.to_string()),
            Err(KmsError { code, message }) => {
                let mut body = json!({ "__type": code });
                if let Some(message) = message {
                    body["message"] = message.into();
                }
                Self { error: Some(code.clone()), ..Self::new(KmsError::status(&code), AWS_JSON, body.to_string()) }
            }
        }
    }

    fn send(self, fault: Option<&Fault>) -> io::Result<Response<Answer>> {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(self.status).map_err(io::Error::other)?)
            .header(CONTENT_TYPE, self.content_type)
            .header("x-amzn-requestid", uuid::Uuid::new_v4().to_string());
        if let Some(ttl) = self.ttl {
            response = response.header(imds::TOKEN_TTL, ttl);
        }
        if let Some(skew) = fault.map(|fault| fault.date_skew_seconds).filter(|skew| *skew != 0) {
            let date = Timestamp::now() + SignedDuration::from_secs(skew);
            response = response.header(DATE, date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        let length = self.body.len();
        let (sent, promised, end) = match fault.map(|fault| &fault.effect) {
            Some(Effect::TruncatedJson) => (length.saturating_sub(1), length.saturating_sub(1), End::Complete),
            Some(Effect::CloseMidBody) => (length / 2, length, End::CloseAfterFlush),
            Some(Effect::StallMidBody) => (length / 2, length, End::Stall),
            _ => (length, length, End::Complete),
        };
        let body = Answer { data: Some(Bytes::from(self.body).slice(..sent)), promised: promised as u64, end };
        response.body(body).map_err(io::Error::other)
    }
}

/// A body that can end too early.
struct Answer {
    data: Option<Bytes>,
    promised: u64,
    end: End,
}

enum End {
    Complete,
    /// Gives the data one turn to be written.
    CloseAfterFlush,
    Close,
    Stall,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.end {
            End::Complete => Poll::Ready(None),
            End::CloseAfterFlush => {
                self.end = End::Close;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::Close => Poll::Ready(Some(Err(io::Error::other("closed by a fault")))),
            End::Stall => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

async fn answer(
    shared: &Shared,
    parts: &Parts,
    body: &[u8],
    source: SocketAddr,
    tls: bool,
    reset: &AtomicBool,
) -> io::Result<Response<Answer>> {
    let parameters = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut request = describe(parts, &parameters);
    request.source = source.to_string();
    request.tls = tls;
    let fault = shared.faults.take(&request.operation);
    let reply = reply(shared, parts, &parameters, &request.operation, fault.as_ref());
    request.status = reply.as_ref().map(|reply| reply.status);
    request.error = reply.as_ref().and_then(|reply| reply.error.clone());
    request.fault = fault.as_ref().map(|fault| fault.effect.name().to_owned());
    shared.log.push(request)?;
    if let Some(fault) = &fault {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        reset.store(fault.effect == Effect::Reset, Ordering::Relaxed);
        if fault.effect == Effect::Hang {
            pending::<()>().await;
        }
    }
    // an error makes hyper close the connection
    reply.ok_or_else(|| io::Error::other("closed by a fault"))?.send(fault.as_ref())
}

/// The answer, if the fault lets there be one.
fn reply(shared: &Shared, parts: &Parts, body: &Value, operation: &str, fault: Option<&Fault>) -> Option<Reply> {
    let effect = fault.map_or(&Effect::Pass, |fault| &fault.effect);
    let is_imds = operation.starts_with("imds:");
    match effect {
        Effect::Hang | Effect::Close | Effect::Reset => return None,
        Effect::Raw { status, body, content_type } => return Some(Reply::new(*status, content_type, body)),
        Effect::Error { code, status, message } => {
            let error = KmsError { code: code.clone(), message: message.clone() };
            let reply = if is_imds { Reply::new(400, "text/plain", code) } else { Reply::kms(Err(error)) };
            return Some(Reply { status: status.unwrap_or(reply.status), error: Some(code.clone()), ..reply });
        }
        Effect::Pass
        | Effect::CloseMidBody
        | Effect::StallMidBody
        | Effect::TruncatedJson
        | Effect::Oversized { .. }
        | Effect::PlaintextLength { .. }
        | Effect::EmptyCiphertext
        | Effect::WrongKeyId => {}
    }
    let mut reply = if is_imds {
        let answer = shared.imds.call(parts.method.as_str(), parts.uri.path(), &parts.headers);
        Reply { ttl: answer.ttl, ..Reply::new(answer.status, "text/plain", answer.body) }
    } else if operation == "unknown" {
        Reply::new(404, "text/plain", "fake-aws: neither KMS nor IMDS")
    } else {
        Reply::kms(kms(shared, parts, body, operation).map(|answer| tamper(shared, answer, effect)))
    };
    if let Effect::Oversized { bytes } = effect {
        reply.body.extend(std::iter::repeat_n(' ', bytes.saturating_sub(reply.body.len())));
    }
    Some(reply)
}

fn kms(shared: &Shared, parts: &Parts, body: &Value, operation: &str) -> Result<Value, KmsError> {
    let error = |code: &str, message: &str| KmsError { code: code.to_owned(), message: Some(message.to_owned()) };
    if !parts.headers.contains_key(AUTHORIZATION) {
        return Err(error("MissingAuthenticationTokenException", "Missing Authentication Token"));
    }
    if !body.is_object() {
        return Err(error("SerializationException", "the body is not a JSON object"));
    }
    shared.kms.call(operation, body)
}

fn tamper(shared: &Shared, mut answer: Value, effect: &Effect) -> Value {
    let (field, value) = if let Effect::PlaintextLength { bytes } = effect {
        ("Plaintext", BASE64.encode(vec![0; *bytes]))
    } else if *effect == Effect::EmptyCiphertext {
        ("CiphertextBlob", String::new())
    } else if *effect == Effect::WrongKeyId {
        ("KeyId", shared.kms.arn("00000000-0000-0000-0000-000000000000"))
    } else {
        return answer;
    };
    if let Some(old) = answer.get_mut(field) {
        *old = value.into();
    }
    answer
}

/// What the log says of a request.
fn describe(parts: &Parts, body: &Value) -> Request {
    let path = parts.uri.path();
    let target = header(&parts.headers, "x-amz-target");
    let operation = if path.starts_with("/latest/") {
        imds::operation(path).to_owned()
    } else {
        let name = target.as_deref().and_then(|target| target.strip_prefix(KMS_TARGET));
        name.unwrap_or("unknown").to_owned()
    };
    let authorization = header(&parts.headers, AUTHORIZATION.as_str()).unwrap_or_default();
    // AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/kms/aws4_request, SignedHeaders=...
    let credential = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
    let scope = |at: usize| credential.split([',', '/']).nth(at).filter(|part| !part.is_empty()).map(str::to_owned);
    let text = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
    let contexts = body.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("EncryptionContext"));
    let contexts: Map<_, _> = contexts.map(|(name, value)| (name.clone(), value.clone())).collect();
    Request {
        time: Timestamp::now(),
        operation,
        request: format!("{} {path}", parts.method),
        source: String::new(),
        tls: false,
        user_agent: header(&parts.headers, USER_AGENT.as_str()),
        access_key_id: scope(0),
        signed_region: scope(2),
        key_id: text("KeyId").or_else(|| text("TargetKeyId")),
        source_key_id: text("SourceKeyId"),
        destination_key_id: text("DestinationKeyId"),
        key_spec: text("KeySpec"),
        number_of_bytes: body.get("NumberOfBytes").and_then(Value::as_u64),
        encryption_context: (!contexts.is_empty()).then(|| contexts.into()),
        dry_run: body.get("DryRun").and_then(Value::as_bool) == Some(true),
        status: None,
        error: None,
        fault: None,
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
