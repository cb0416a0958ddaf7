//! Probes: several GET requests at once, of which only the statuses are read.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream};
use http::{
    Request,
    header::{CONNECTION, USER_AGENT},
};
use hyper::body::Bytes;

use super::{AGENT, Failure};
use crate::{
    gather::measures::http::Http,
    rollout::calls::{Call, Outcome},
};

/// Requests of one probe that are under way at the same time.
const AT_ONCE: usize = 5;
/// Seconds in which all of one probe have to be answered.
pub(super) const LONGEST: u64 = 60;

/// Sends so many requests; the first one that is not answered ends it.
pub(super) async fn probe(
    http: &dyn Http,
    call: &Call,
    (url, count): (&str, u32),
    limit: Duration,
    ca: Option<&str>,
) -> Result<Outcome, Failure> {
    let once = |_| async move {
        let request = request(call, url)?;
        match tokio::time::timeout(limit, http.send(request, ca)).await {
            Ok(response) => Ok(response?.status().as_u16()),
            Err(_) => Err(Failure::Unavailable(format!("no answer within {} seconds", limit.as_secs()))),
        }
    };
    let mut answers = stream::iter(0..count).map(once).buffer_unordered(AT_ONCE);
    let mut statuses = BTreeMap::<u16, u32>::new();
    while let Some(status) = answers.next().await {
        *statuses.entry(status?).or_default() += 1;
    }
    Ok(Outcome::Probed(statuses))
}

fn request(call: &Call, url: &str) -> Result<Request<Bytes>, Failure> {
    // A connection that is kept leads to the same of a gateway's replicas every time.
    let mut request = Request::get(url).header(USER_AGENT, AGENT).header(CONNECTION, "close");
    for (name, value) in &call.headers {
        request = request.header(name.as_ref(), value);
    }
    request.body(Bytes::new()).map_err(|error| Failure::Mistake(format!("cannot be sent: {error}")))
}
