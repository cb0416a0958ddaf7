//! Questions, and answers without a connection, for the tests of the providers.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use http::{Request, Response, header::LOCATION};
use hyper::body::Bytes;
use jiff::Timestamp;

use super::{
    Provider as _,
    http::{Failure, Http, Web},
    login::Logins,
    servers::Servers,
};
use crate::{
    analysis::{Answer, ask::Ask},
    api::analysis::{MetricProvider, Prometheus},
    gather::stand_ins::api,
};

/// A question to a Prometheus.
pub fn ask(address: &str) -> Ask {
    let prometheus = Prometheus { address: address.into(), tenant: Some("shop".into()), secret_ref: None };
    ask_of(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }, "sum(rate(x[1m])) > 0 & 1")
}

/// A question of the interval 30 s that is due at 1,000,000,000.
pub fn ask_of(provider: MetricProvider, query: &str) -> Ask {
    Ask::new(&provider, "demo", query, 30, Timestamp::from_second(1_000_000_000).unwrap())
}

/// Says always the same, and keeps what it was asked.
#[derive(Default)]
pub struct Canned {
    pub status: u16,
    pub body: String,
    pub asked: Mutex<Vec<Request<Bytes>>>,
}

impl Http for Canned {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        self.asked.lock().unwrap().push(request);
        let response = Response::builder().status(self.status).header(LOCATION, "http://elsewhere/");
        Box::pin(async { Ok(response.body(self.body.clone().into()).unwrap()) })
    }
}

/// What is made of an answer of a server that needs no login.
pub async fn answer_to(ask: &Ask, status: u16, body: &str) -> (Answer, Request<Bytes>) {
    let http = Arc::new(Canned { status, body: body.to_owned(), asked: Mutex::default() });
    // A login that is not checked: it is what a test of its own is about.
    let servers = Servers { http: http.clone(), logins: Some(Logins::new(api(Arc::default()))), allowed: Vec::new() };
    let answer = servers.ask(ask).await;
    let asked = http.asked.lock().unwrap().remove(0);
    (answer, asked)
}

pub fn vector(result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}},"warnings":["w"]}}"#)
}

pub fn servers() -> Servers {
    Servers { http: Arc::new(Web::default()), logins: None, allowed: Vec::new() }
}
