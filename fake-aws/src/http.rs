//! Serves one HTTP connection and applies faults to the answers.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Interval, interval};
use tokio_rustls::TlsAcceptor;

use crate::fault::{Effect, Fault};
use crate::kms::KmsError;
use crate::log::Request;
use crate::shared::Shared;
use crate::{control, imds, sts};

const AWS_JSON: &str = "application/x-amz-json-1.1";
const REQUEST_BODY_LIMIT: usize = 1 << 20;

/// Serves one connection until it closes.
pub(crate) async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    source: SocketAddr,
    acceptor: Option<TlsAcceptor>,
) {
    match acceptor {
        None => serve_connection(shared, stream, source, false, |stream| stream).await,
        Some(acceptor) => {
            // this fails for a client that does not trust the certificate
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
    // an error means that the client closed the connection or that a fault did
    let _result = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if reset.load(Ordering::Relaxed) {
        let _result = tcp(connection.into_parts().io.inner()).set_zero_linger();
    }
}

/// An answer before a fault is applied to its transport.
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
        if let Some(Effect::Redirect { location, .. }) = fault.map(|fault| &fault.effect) {
            response = response.header(LOCATION, location);
        }
        let length = self.body.len();
        let (sent, promised, end) = match fault.map(|fault| &fault.effect) {
            Some(Effect::TruncatedJson) => (length.saturating_sub(1), length.saturating_sub(1), End::Complete),
            Some(Effect::CloseMidBody) => (length / 2, length, End::CloseAfterFlush),
            Some(Effect::StallMidBody) => (length / 2, length, End::Stall),
            Some(Effect::Drip { ms }) => {
                let drop = Duration::from_millis(*ms) / u32::try_from(length.max(1)).unwrap_or(u32::MAX);
                (length, length, End::Drip(interval(drop.max(Duration::from_nanos(1)))))
            }
            _ => (length, length, End::Complete),
        };
        let body = Answer { data: Some(Bytes::from(self.body).slice(..sent)), promised: promised as u64, end };
        response.body(body).map_err(io::Error::other)
    }
}

/// A response body that can end before its announced length.
struct Answer {
    data: Option<Bytes>,
    promised: u64,
    end: End,
}

enum End {
    Complete,
    /// Closes after hyper had one turn to write the data.
    CloseAfterFlush,
    Close,
    Stall,
    /// Sends one byte at every tick.
    Drip(Interval),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let End::Drip(ticks) = &mut self.end {
            ready!(ticks.poll_tick(cx));
            let byte = self.data.as_mut().filter(|data| !data.is_empty()).map(|data| data.split_to(1));
            return Poll::Ready(byte.map(|byte| Ok(Frame::data(byte))));
        }
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
            End::Stall | End::Drip(_) => Poll::Pending,
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
    let mut request = Request::new(parts, &parameters, source, tls);
    if let Some(operation) = sts::operation(&parts.headers, body) {
        operation.clone_into(&mut request.operation);
    }
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

/// Returns the answer, or `None` if the fault suppresses it.
fn reply(shared: &Shared, parts: &Parts, body: &Value, operation: &str, fault: Option<&Fault>) -> Option<Reply> {
    let effect = fault.map_or(&Effect::Pass, |fault| &fault.effect);
    let is_imds = operation.starts_with("imds:");
    match effect {
        Effect::Hang | Effect::Close | Effect::Reset => return None,
        Effect::Raw { status, body, content_type } => return Some(Reply::new(*status, content_type, body)),
        Effect::Redirect { status, .. } => return Some(Reply::new(*status, "text/plain", "")),
        Effect::Error { code, status, message } => {
            let error = KmsError { code: code.clone(), message: message.clone() };
            let reply = if is_imds {
                Reply::new(400, "text/plain", code)
            } else if operation == sts::GET_CALLER_IDENTITY {
                Reply::new(400, "text/xml", sts::error(code, message.as_deref().unwrap_or_default()))
            } else {
                Reply::kms(Err(error))
            };
            return Some(Reply { status: status.unwrap_or(reply.status), error: Some(code.clone()), ..reply });
        }
        Effect::Pass
        | Effect::CloseMidBody
        | Effect::StallMidBody
        | Effect::TruncatedJson
        | Effect::Oversized { .. }
        | Effect::PlaintextLength { .. }
        | Effect::CiphertextLength { .. }
        | Effect::WrongKeyId
        | Effect::Field { .. }
        | Effect::WithoutField { .. }
        | Effect::ContentType { .. }
        | Effect::Drip { .. }
        | Effect::IgnoreDryRun
        | Effect::KeyBecomes { .. } => {}
    }
    let mut reply = if is_imds {
        let answer = shared.imds.call(parts.method.as_str(), parts.uri.path(), &parts.headers);
        Reply { ttl: answer.ttl, ..Reply::new(answer.status, "text/plain", answer.body) }
    } else if operation == sts::GET_CALLER_IDENTITY {
        Reply::new(200, "text/xml", sts::caller(&shared.principal, &shared.account))
    } else if operation == "unknown" {
        Reply::new(404, "text/plain", "fake-aws: the request is for none of the services that it has")
    } else {
        let mut body = body.clone();
        if *effect == Effect::IgnoreDryRun
            && let Some(fields) = body.as_object_mut()
        {
            fields.retain(|name, _| !name.starts_with("DryRun"));
        }
        Reply::kms(kms(shared, parts, &body, operation).map(|answer| tamper(shared, answer, effect)))
    };
    if let Effect::Oversized { bytes } = effect {
        reply.body.extend(std::iter::repeat_n(' ', bytes.saturating_sub(reply.body.len())));
    } else if let Effect::ContentType { content_type } = effect {
        content_type.clone_into(&mut reply.content_type);
    } else if let Effect::KeyBecomes { state } = effect {
        shared.kms.set_first_state(*state);
    }
    Some(reply)
}

fn kms(shared: &Shared, parts: &Parts, body: &Value, operation: &str) -> Result<Value, KmsError> {
    let error = |code: &str, message: &str| KmsError { code: code.to_owned(), message: Some(message.to_owned()) };
    if !parts.headers.contains_key(AUTHORIZATION) {
        return Err(error("MissingAuthenticationTokenException", "Missing Authentication Token"));
    }
    if !body.is_object() {
        return Err(error("SerializationException", "the request body is not a JSON object"));
    }
    shared.kms.call(operation, body)
}

fn tamper(shared: &Shared, mut answer: Value, effect: &Effect) -> Value {
    let zeros = |bytes: &usize| Value::from(BASE64.encode(vec![0; *bytes]));
    let (field, value) = if let Effect::PlaintextLength { bytes } = effect {
        ("Plaintext", zeros(bytes))
    } else if let Effect::CiphertextLength { bytes } = effect {
        ("CiphertextBlob", zeros(bytes))
    } else if *effect == Effect::WrongKeyId {
        ("KeyId", shared.kms.arn("00000000-0000-0000-0000-000000000000").into())
    } else if let Effect::Field { name, value } = effect {
        (name.as_str(), value.clone())
    } else if let Effect::WithoutField { name } = effect {
        answer.as_object_mut().and_then(|fields| fields.remove(name));
        return answer;
    } else {
        return answer;
    };
    if let Some(old) = answer.get_mut(field) {
        *old = value;
    }
    answer
}
