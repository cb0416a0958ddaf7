//! A small HTTP client that shows every failure: one connection, no retries, no proxies.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A gateway that does not answer for so long has lost the request.
const LIMIT: Duration = Duration::from_secs(10);

pub struct Connection {
    address: SocketAddr,
    sender: Option<http1::SendRequest<Empty<Bytes>>>,
}

impl Connection {
    pub fn to(address: SocketAddr) -> Connection {
        Connection { address, sender: None }
    }

    /// `GET path`. After an error the next request opens a new connection.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, Bytes)> {
        let result = tokio::time::timeout(LIMIT, self.exchange(path, headers)).await;
        let result = result.unwrap_or_else(|_| Err(anyhow!("no answer within {LIMIT:?}")));
        if result.is_err() {
            self.sender = None;
        }
        result
    }

    async fn exchange(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, Bytes)> {
        // A connection that the other side closed while idle is no failure; a new one is opened before anything is sent.
        let mut sender = match self.sender.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => {
                let stream = TcpStream::connect(self.address).await.context("connect")?;
                stream.set_nodelay(true)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        let mut request = Request::get(path).body(Empty::new())?;
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_static("nginx.example.com"));
        for (name, value) in headers {
            map.insert(HeaderName::try_from(*name)?, HeaderValue::try_from(*value)?);
        }
        *request.headers_mut() = map;
        let response = sender.send_request(request).await.context("send")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("body")?.to_bytes();
        sender.ready().await.ok();
        self.sender = Some(sender);
        Ok((status, body))
    }
}

/// One request on a connection of its own; an error unless the answer is 2xx.
pub async fn get(address: &str, path: &str) -> Result<String> {
    let (status, body) = Connection::to(address.parse()?).get(path, &[]).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    anyhow::ensure!(status.is_success(), "{address}{path}: {status} {text}");
    Ok(text)
}
