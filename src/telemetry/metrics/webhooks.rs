//! What the API server asks, and the certificates by which it does.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookResult {
    webhook: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Certificate {
    certificate: &'static str,
}

#[derive(Debug)]
pub(super) struct Webhooks {
    duration: Family<WebhookResult, Histogram, fn() -> Histogram>,
    certificate_end: Family<Certificate, Gauge>,
}

impl Webhooks {
    pub fn new(registry: &mut Registry) -> Self {
        let webhooks = Self {
            // A review takes some 0.1 ms to 10 ms; the API server gives up after ten seconds.
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_125, 4.0, 9))),
            certificate_end: Family::default(),
        };
        registry.register_with_unit(
            "webhook_duration",
            "How long the answer to a review took, by webhook and result",
            Unit::Seconds,
            webhooks.duration.clone(),
        );
        registry.register_with_unit(
            "webhook_certificate_expiry_timestamp",
            "When a certificate of the webhooks ends, in seconds since 1970",
            Unit::Seconds,
            webhooks.certificate_end.clone(),
        );
        webhooks
    }

    pub fn called(&self, webhook: &'static str, result: &'static str, took: Duration) {
        self.duration.get_or_create(&WebhookResult { webhook, result }).observe(took.as_secs_f64());
    }

    pub fn certificate_ends(&self, certificate: &'static str, second: i64) {
        self.certificate_end.get_or_create(&Certificate { certificate }).set(second);
    }
}
