//! The OpenTelemetry collector, which prints the spans that it is sent.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::Result;
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    Rig,
    poll::{SOON, until},
    process::Daemon,
};

/// Where it takes spans, with the certificate of the API server.
pub const ENDPOINT: &str = "https://127.0.0.1:14318";

pub struct Collector(Daemon);

impl Collector {
    pub async fn start(rig: &Rig) -> Result<Collector> {
        let pki = &rig.cluster.pki;
        let tls = json!({"cert_file": pki.file("api.crt"), "key_file": pki.file("api.key"), "min_version": "1.2"});
        let config = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:14318", "tls": tls}}}},
            "exporters": {"debug": {"verbosity": "detailed"}},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
                "telemetry": {"metrics": {"level": "none"}}},
        });
        let file = rig.dir.join("otelcol.yaml");
        fs::write(&file, tidegate::yaml::to_string(&config)?)?;
        // It looks for its own process in /proc, which is that of another PID namespace.
        let mut command = Command::new("unshare");
        command.arg("--mount-proc").arg(rig.tools.path("otelcol")?).arg(format!("--config=file:{}", file.display()));
        let collector = Collector(Daemon::start(&mut command, "otelcol", &rig.dir)?);
        until("the collector is ready", SOON, async || {
            collector.0.alive()?;
            Ok(TcpStream::connect("127.0.0.1:14318").await?)
        })
        .await?;
        Ok(collector)
    }

    /// What it has printed.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.0.log)?)
    }

    /// The spans that it has taken, in the order of their coming.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let log = self.log()?;
        let mut spans = Vec::<Span>::new();
        for line in log.lines().map(str::trim) {
            if line.starts_with("Span #") {
                spans.push(Span::default());
            }
            let Some(span) = spans.last_mut() else { continue };
            if let Some((key, value)) = line.strip_prefix("-> ").and_then(|rest| rest.split_once(": ")) {
                let value = value.split_once('(').map_or(value, |(_, value)| value.trim_end_matches(')'));
                span.attributes.insert(key.to_owned(), value.to_owned());
            } else if let Some((key, value)) = line.split_once(" : ").or_else(|| line.split_once(": ")) {
                span.fields.entry(key.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
            }
        }
        Ok(spans)
    }
}

/// A span, as the collector prints it.
#[derive(Debug, Default)]
pub struct Span {
    /// `Name`, `Trace ID`, `Parent ID`, `Status code` ...
    pub fields: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}
