//! Waiting with a deadline and a reason.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a thing may take that takes a second or two on an idle machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Asks `check` every 50 ms until it gives a value. At the deadline the error names `what` and the last reason.
pub async fn until<T, F>(what: &str, limit: Duration, mut check: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<T>,
{
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        // A check that hangs (a server that is away) must not outlive the deadline.
        let reason = match tokio::time::timeout(left.max(Duration::from_secs(1)), check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => format!("{reason:#}"),
            Err(_) => "no answer".to_owned(),
        };
        if start.elapsed() >= limit {
            bail!("{what}: not within {limit:?}; last seen: {reason}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
