//! Limits the size of HTTP responses.

use aws_sdk_kms::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// Maximum length of a response in bytes: the credentials of a role have about 2 KiB, and `GenerateDataKey` returns
/// two blobs of a few KiB.
const ANSWER_MAX: usize = 64 << 10;

/// Limits the responses that a client reads.
///
/// The SDK reads a whole response into memory, which is locked.
pub(crate) fn limit_responses(http: SharedHttpClient) -> SharedHttpClient {
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(LimitedAnswers(http.http_connector(settings, components)))
    })
}

#[derive(Debug)]
struct LimitedAnswers(SharedHttpConnector);

impl HttpConnector for LimitedAnswers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            Ok(answer.await?.map(|body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_MAX))))
        })
    }
}

/// Sends requests over TLS by one client, and the others by another.
pub(super) fn by_scheme(over_tls: SharedHttpClient, plain: SharedHttpClient) -> SharedHttpClient {
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(ByScheme {
            over_tls: over_tls.http_connector(settings, components),
            plain: plain.http_connector(settings, components),
        })
    })
}

#[derive(Debug)]
struct ByScheme {
    over_tls: SharedHttpConnector,
    plain: SharedHttpConnector,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_plain = request.uri().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        if is_plain { self.plain.call(request) } else { self.over_tls.call(request) }
    }
}
