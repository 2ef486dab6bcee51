//! An HTTP client whose answers come from the input, and time that passes by itself while nothing else happens: what the
//! agent waits for costs nothing.
//!
//! An answer begins with a line that is an HTTP status, or `hang`, `reset`, `timeout`, or `cut STATUS` for a body that breaks
//! off half way. Headers and body follow as in HTTP. When all answers are given, more requests are refused in a way that is
//! never tried again.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::sleep;

/// What is in the answers where key material would be: the base64 of 32 bytes that are no key.
pub const MARKER: &str = "UXo3I21hcmtlci9RejcjbWFya2VyL1F6NyNtYXJrZXI=";
/// The same, decoded.
pub const MARKER_BYTES: &[u8; 32] = b"Qz7#marker/Qz7#marker/Qz7#marker";

/// One exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// `X-Amz-Target`, or method and path.
    pub asked: String,
    /// HTTP status of the answer, if one came whole.
    pub status: Option<u16>,
    /// Its body.
    pub body: Vec<u8>,
}

/// The answers that are left, and what went before.
#[derive(Debug, Default)]
pub struct Script {
    answers: Vec<Vec<u8>>,
    exchanges: Vec<Exchange>,
}

/// An HTTP client that answers from a script.
#[derive(Debug, Clone, Default)]
pub struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    /// Answers, first one first.
    pub fn new(answers: &[&[u8]]) -> Self {
        let answers = answers.iter().rev().map(|answer| answer.to_vec()).collect();
        Self(Arc::new(Mutex::new(Script { answers, exchanges: Vec::new() })))
    }

    /// The client to hand to an SDK.
    pub fn client(&self) -> SharedHttpClient {
        let script = self.clone();
        http_client_fn(move |settings, _| {
            let patience = settings.read_timeout();
            SharedHttpConnector::new(Connection { script: script.clone(), patience })
        })
    }

    /// What has been asked and answered so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.0.lock().expect("nobody panics with it").exchanges.clone()
    }
}

#[derive(Debug)]
struct Connection {
    script: Scripted,
    /// How long an answer is waited for, if not for ever.
    patience: Option<Duration>,
}

impl HttpConnector for Connection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let asked = target.map_or_else(|| format!("{} {}", request.method(), request.uri()), str::to_owned);
        let mut script = self.script.0.lock().expect("nobody panics with it");
        let answer = script.answers.pop().map_or_else(Answer::last, |text| Answer::parse(&text));
        let (status, body) = match &answer {
            Answer::Whole(response, body) => (Some(response.status().as_u16()), body.clone()),
            Answer::Cut(..) | Answer::Hang | Answer::Error(_) => (None, vec![]),
        };
        script.exchanges.push(Exchange { asked, status, body });
        match answer {
            Answer::Whole(response, body) => {
                HttpConnectorFuture::ready(Ok(response.map(|()| SdkBody::from(body.clone()))))
            }
            Answer::Cut(response, body) => {
                let body = SdkBody::from_body_1_x(CutBody(Some(body.into())));
                let mut response = response.map(|()| SdkBody::empty());
                *response.body_mut() = body;
                HttpConnectorFuture::ready(Ok(response))
            }
            Answer::Hang => {
                let patience = self.patience;
                HttpConnectorFuture::new(async move {
                    match patience {
                        Some(patience) => sleep(patience).await,
                        None => std::future::pending().await,
                    }
                    Err(ConnectorError::timeout("no answer in time".into()))
                })
            }
            Answer::Error(error) => HttpConnectorFuture::ready(Err(error)),
        }
    }
}

type Head = aws_smithy_runtime_api::http::Response<()>;

enum Answer {
    Whole(Head, Vec<u8>),
    Cut(Head, Vec<u8>),
    Hang,
    Error(ConnectorError),
}

impl Answer {
    fn parse(text: &[u8]) -> Self {
        let (line, rest) = cut_at(text, b"\n");
        let line = String::from_utf8_lossy(line);
        match line.trim() {
            "hang" => return Self::Hang,
            "reset" => return Self::Error(ConnectorError::io("connection reset".into())),
            "timeout" => return Self::Error(ConnectorError::timeout("no connection in time".into())),
            _ => {}
        }
        let cut = line.trim().strip_prefix("cut");
        let status = cut.unwrap_or(&line).trim().parse().unwrap_or(200_u16);
        let mut head = Head::new(StatusCode::try_from(status).unwrap_or(StatusCode::try_from(200).expect("OK")), ());
        let (headers, body) = match rest.strip_prefix(b"\n") {
            Some(body) => (&b""[..], body),
            None => cut_at(rest, b"\n\n"),
        };
        for header in headers.split(|b| *b == b'\n') {
            let (name, value) = cut_at(header, b":");
            if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) {
                let _ = head.headers_mut().try_append(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        let body = with_marker(body);
        match cut {
            Some(_) => Self::Cut(head, body[..body.len() / 2].to_vec()),
            None => Self::Whole(head, body),
        }
    }

    /// What KMS says of a key that is not there.
    fn last() -> Self {
        let head = Head::new(StatusCode::try_from(400).expect("a status"), ());
        Self::Whole(head, br#"{"__type":"NotFoundException","message":"the end of the script"}"#.to_vec())
    }
}

/// Puts the marker where a plaintext would be; what stands elsewhere, such as in KMS's messages, may be shown.
fn with_marker(body: &[u8]) -> Vec<u8> {
    const PLACE: &[u8] = br#""Plaintext":"@KEY@"#;
    let mut out = Vec::with_capacity(body.len() + MARKER.len());
    let mut rest = body;
    while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
        out.extend_from_slice(&rest[..at + PLACE.len() - b"@KEY@".len()]);
        out.extend_from_slice(MARKER.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn cut_at<'a>(text: &'a [u8], end: &[u8]) -> (&'a [u8], &'a [u8]) {
    match text.windows(end.len()).position(|window| window == end) {
        Some(at) => (&text[..at], &text[at + end.len()..]),
        None => (text, b""),
    }
}

/// Half a body, then an error.
struct CutBody(Option<Bytes>);

impl fmt::Debug for CutBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CutBody(..)")
    }
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or_else(|| std::io::Error::other("connection reset"))))
    }
}
