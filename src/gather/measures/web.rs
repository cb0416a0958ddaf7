//! Any server that answers in JSON.

use http::{Request, header::CONTENT_TYPE};
use hyper::body::Bytes;
use serde_json::Value;

use super::{
    http::Failure,
    servers::{Dialect, impossible},
};
use crate::analysis::{Answer, ask::Ask, json_path::JsonPath};

/// A server that answers in JSON; the query is the way to the value.
pub(super) struct Web;

impl Dialect for Web {
    fn request(&self, ask: &Ask, address: &str) -> Result<Request<Bytes>, Failure> {
        let web = ask.provider.web.as_ref();
        let uri = format!("{address}{}", web.and_then(|web| web.path.as_deref()).unwrap_or_default());
        let request = match web.and_then(|web| web.body.as_ref()) {
            None => Request::get(uri).body(Bytes::new()),
            Some(body) => Request::post(uri).header(CONTENT_TYPE, "application/json").body(body.clone().into()),
        };
        request.map_err(impossible)
    }

    fn read(&self, ask: &Ask, body: &[u8]) -> Result<Answer, Failure> {
        let path = JsonPath::parse(&ask.query).map_err(Failure::Mistake)?;
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| Failure::Mistake(format!("the answer is no JSON: {error}")))?;
        path.answer(&document).map_err(Failure::Mistake)
    }

    fn objection(&self, _: &[u8]) -> Option<String> {
        // Nobody knows what it says, and to whom.
        None
    }
}

#[cfg(test)]
mod tests;
