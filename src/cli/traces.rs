//! Where the controller sends traces, by the environment variables that OpenTelemetry has for it.

use std::{fmt, path::PathBuf, pin::Pin, sync::Arc};

use anyhow::Context as _;
use http::{Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use tokio_util::sync::CancellationToken;

use crate::{
    gather::measures::http::{Failure, Http, Web},
    telemetry::{Metrics, Traces},
};

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// The flags.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Send a trace of every release to this receiver by OTLP over HTTP, such as http://otel-collector.monitoring:4318;
    /// OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and the like are heeded [default: send none]
    #[arg(
        long,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        default_value = "",
        hide_default_value = true
    )]
    otlp_endpoint: String,
    /// PEM file with the authorities that the receiver's certificate is judged by [default: the system's]
    #[arg(long, value_name = "FILE", env = "OTEL_EXPORTER_OTLP_CERTIFICATE")]
    otlp_certificate: Option<PathBuf>,
}

impl TraceArgs {
    /// Who sends, and its work; `None` where no traces are wanted.
    ///
    /// # Errors
    /// An address that is none, or a file that cannot be read.
    pub fn start(
        &self,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> anyhow::Result<Option<(Traces, impl Future<Output = ()> + Send + use<>)>> {
        let has_own = std::env::var_os(TRACES_ENDPOINT).is_some_and(|value| !value.is_empty());
        let endpoint = self.otlp_endpoint.trim().trim_end_matches('/');
        if endpoint.is_empty() && !has_own {
            return Ok(None);
        }
        let ca = self.otlp_certificate.as_ref().map(|file| {
            std::fs::read_to_string(file).with_context(|| format!("--otlp-certificate {}", file.display()))
        });
        let client = Client { http: Arc::new(Web::default()), ca: ca.transpose()? };
        let builder = SpanExporter::builder().with_http().with_http_client(client);
        let builder = match has_own {
            true => builder,
            false => {
                let url = endpoint.parse::<http::Uri>().ok();
                if !url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https"))) {
                    anyhow::bail!(
                        "--otlp-endpoint {endpoint}: write a URL such as http://otel-collector.monitoring:4318"
                    );
                }
                builder.with_endpoint(format!("{endpoint}/v1/traces"))
            }
        };
        let exporter = builder.build().map_err(|error| anyhow::anyhow!("traces cannot be sent: {error}"))?;
        Ok(Some(Traces::start(exporter, metrics.clone(), stop)))
    }
}

/// The connections that hooks and metrics servers have.
struct Client {
    http: Arc<dyn Http>,
    ca: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = self.http.send(request, self.ca.as_deref()).await;
            sent.map_err(|(Failure::Unavailable(why) | Failure::Mistake(why))| why.into())
        })
    }
}
