//! Logs: text for people or JSON for machines, to stderr, each line with the rollout that it is about.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Registry, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text, in colour on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The flags of every command that logs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,tidegate::apply=debug`
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = "info", value_parser = directives)]
    pub log_level: String,
}

/// Refuses a filter on the command line, where it was written.
fn directives(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("{e}; write error, warn, info, debug, trace, or such as info,tidegate=debug")),
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error(
        "log level {level:?}: {cause}; write error, warn, info, debug, trace, or directives such as info,tidegate=debug"
    )]
    Level {
        /// What was given.
        level: String,
        /// What the parser says.
        cause: String,
    },
    /// The process logs already.
    #[error("logging was started before")]
    Started,
}

/// Starts logging for the whole process.
///
/// # Errors
/// A filter that does not parse, or a second start.
pub fn init(format: Format, level: &str) -> Result<(), Error> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    subscriber(format, level, colour, std::io::stderr)?.try_init().map_err(|_| Error::Started)
}

/// A span for all work on one Rollout. Error level, so that no filter removes the names from the lines that it keeps.
pub fn rollout_span(namespace: &str, name: &str) -> tracing::Span {
    // Not `name`: the JSON form gives that key to the name of the span itself.
    tracing::error_span!("rollout", namespace, rollout = name)
}

/// A span for all work on one TrafficRouting, as [`rollout_span`].
pub fn routing_span(namespace: &str, name: &str) -> tracing::Span {
    tracing::error_span!("traffic_routing", namespace, routing = name)
}

fn subscriber<W>(
    format: Format,
    level: &str,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|e| Error::Level { level: level.to_owned(), cause: e.to_string() })?;
    let base = Registry::default().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    Ok(match format {
        Format::Human => Box::new(base.with(lines)),
        Format::Json => Box::new(base.with(lines.json().flatten_event(true).with_current_span(false))),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, level: &str) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(format, level, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            rollout_span("shop", "web").in_scope(|| {
                tracing::info!(step = 2, "step started");
                // The client's own spans lie within ours.
                tracing::info_span!("HTTP").in_scope(|| tracing::warn!("route refused"));
            });
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_human_line_names_the_rollout() {
        let text = logged(Format::Human, "info");
        assert_eq!(text.lines().count(), 2, "{text}");
        for line in text.lines() {
            assert!(line.contains(r#"rollout{namespace="shop" rollout="web"}"#), "{line}");
        }
    }

    #[test]
    fn every_json_line_names_the_rollout() {
        let text = logged(Format::Json, "info");
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "step started");
        assert_eq!(lines[0]["step"], 2);
        for line in &lines {
            let span = &line["spans"][0];
            assert_eq!(
                (&span["name"], &span["namespace"], &span["rollout"]),
                (&"rollout".into(), &"shop".into(), &"web".into())
            );
        }
    }

    #[test]
    fn a_line_about_a_traffic_routing_names_it_once() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(Format::Json, "warn", false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            routing_span("shop", "shared").in_scope(|| tracing::warn!(reason = "WriteRefused", "not written"));
        });
        let line: serde_json::Value = serde_json::from_slice(&sink.0.lock().unwrap()).unwrap();
        assert_eq!(line["reason"], "WriteRefused");
        let span = serde_json::json!({"name": "traffic_routing", "namespace": "shop", "routing": "shared"});
        assert_eq!(line["spans"], serde_json::json!([span]));
    }

    #[test]
    fn a_filter_that_drops_lines_keeps_the_names() {
        let text = logged(Format::Human, "warn");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("route refused") && text.contains(r#"rollout="web""#), "{text}");
    }

    #[test]
    fn a_wrong_level_is_refused_with_what_would_be_right() {
        let error = subscriber(Format::Human, "tidegate=loud", false, std::io::stderr).err().unwrap().to_string();
        assert!(error.contains("tidegate=loud") && error.contains("info,tidegate=debug"), "{error}");
    }
}
