//! Compares this node's clock with that of the services: the `Date` header of their responses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_sdk_kms::config::SharedHttpClient;
use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use jiff::{SignedDuration, Timestamp};

/// How far this node's clock was ahead of the service when the last response came.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceClock(Arc<Mutex<Option<SignedDuration>>>);

impl ServiceClock {
    /// Returns the lead; `None` if no response had a date. The date is of whole seconds, and the response took its time.
    pub(super) fn lead(&self) -> Option<SignedDuration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, date: &str) {
        let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate) else { return };
        let Ok(now) = Timestamp::try_from(SystemTime::now()) else { return };
        let lead = SignedDuration::from_secs(now.as_second().saturating_sub(date.secs()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(lead);
    }

    /// Returns an HTTP client that notes the dates of its responses.
    pub(super) fn watch(&self, http: SharedHttpClient) -> SharedHttpClient {
        let clock = self.clone();
        http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Dated(http.http_connector(settings, components), clock.clone()))
        })
    }
}

#[derive(Debug)]
struct Dated(SharedHttpConnector, ServiceClock);

impl HttpConnector for Dated {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, clock) = (self.0.call(request), self.1.clone());
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            if let Some(date) = answer.headers().get("date") {
                clock.note(date);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lead_is_what_the_last_date_says() {
        let clock = ServiceClock::default();
        clock.note("yesterday");
        assert_eq!(clock.lead(), None);
        let hour_ago = DateTime::from(SystemTime::now() - std::time::Duration::from_secs(3600));
        clock.note(&hour_ago.fmt(DateTimeFormat::HttpDate).unwrap());
        let lead = clock.lead().unwrap();
        assert!((3599..=3602).contains(&lead.as_secs()), "{lead}");
    }
}
