//! How to log in to a metrics server, from a Secret of the Rollout's namespace.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::time::Instant;

use super::http::Failure;

/// How long a Secret is remembered; a changed one counts after this at the latest, and at once after a refusal.
const KEPT: Duration = Duration::from_secs(60);
const MOST_KEPT: usize = 1024;

/// How to log in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Login {
    /// Certificates in PEM by which the server's is judged.
    pub ca: Option<String>,
    /// Headers of every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The only address that they are sent to. Whoever writes a Rollout need not be allowed to read its Secret, and must
    /// not be able to have it sent to a server of his own.
    pub address: Option<String>,
    /// By which what is sent is signed.
    pub signing_key: Option<String>,
    /// Where to send to, if that is a secret itself.
    pub url: Option<String>,
}

impl Login {
    /// Whether the headers may be sent there.
    ///
    /// # Errors
    /// When they are for another address, or for none.
    pub fn check(&self, address: &str) -> Result<(), String> {
        let is_same = |known: &String| {
            let rest = address.strip_prefix(known.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        match &self.address {
            _ if self.headers.is_empty() && self.signing_key.is_none() => Ok(()),
            Some(known) if is_same(known) => Ok(()),
            Some(known) => Err(format!("is for {known} and is not sent elsewhere")),
            None => Err(format!("does not say where it may be sent; add the key address with {address}")),
        }
    }
}

/// Namespace, name, and what the keys begin with.
type Key = (String, String, String);

/// Secrets, read one by one when they are needed.
pub struct Logins {
    client: Client,
    kept: Mutex<BTreeMap<Key, (Instant, Login)>>,
}

impl Logins {
    /// Reads with this client.
    pub fn new(client: Client) -> Logins {
        Logins { client, kept: Mutex::default() }
    }

    /// What a Secret says.
    ///
    /// # Errors
    /// When it is missing, may not be read, or says nothing that can be used.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Login, Failure> {
        self.part(namespace, name, "").await
    }

    /// What the keys of a Secret say that begin with a prefix.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn part(&self, namespace: &str, name: &str, prefix: &str) -> Result<Login, Failure> {
        let key = (namespace.to_owned(), name.to_owned(), prefix.to_owned());
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((at, login)) = known
            && at.elapsed() < KEPT
        {
            return Ok(login);
        }
        let secret = Api::<Secret>::namespaced(self.client.clone(), namespace).get(name).await;
        let secret = secret.map_err(|error| unread(&format!("Secret {namespace}/{name}"), error))?;
        let login =
            read(&secret, prefix).map_err(|why| Failure::Mistake(format!("Secret {namespace}/{name}: {why}")))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), login.clone()));
        Ok(login)
    }

    /// The server did not take it: it may be an old one.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(of, known, _), _| (of.as_str(), known.as_str()) != (namespace, name));
    }

    /// The certificates in key `ca.crt` of a ConfigMap.
    ///
    /// # Errors
    /// When it is missing, may not be read, or has none.
    pub async fn trust(&self, namespace: &str, name: &str) -> Result<String, Failure> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let map = api.get(name).await.map_err(|error| unread(&format!("ConfigMap {namespace}/{name}"), error))?;
        let ca = map.data.and_then(|mut data| data.remove("ca.crt"));
        ca.ok_or_else(|| Failure::Mistake(format!("ConfigMap {namespace}/{name} has no ca.crt")))
    }
}

/// Headers that belong to the exchange itself.
const OURS: [&str; 5] = ["host", "content-length", "content-type", "connection", "transfer-encoding"];

/// Why an object cannot be read, and what would help.
fn unread(place: &str, error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.is_not_found() => {
            Failure::Mistake(format!("{place} is missing; create it, or name another"))
        }
        kube::Error::Api(status) if status.is_forbidden() => Failure::Mistake(format!(
            "{place} may not be read: grant the controller the verb get on it by a Role and a RoleBinding"
        )),
        error => Failure::Unavailable(format!("{place}: {error}")),
    }
}

fn read(secret: &Secret, prefix: &str) -> Result<Login, String> {
    let mut login = Login::default();
    let (mut user, mut password) = (None, None);
    for (key, value) in secret.data.iter().flatten().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?, v))) {
        let text = std::str::from_utf8(&value.0).map_err(|_| format!("{key} is no text"))?;
        // What `echo` and editors put at the end.
        let line = text.trim_end_matches(['\r', '\n']);
        match key {
            "url" => login.url = Some(line.trim().to_owned()),
            "signing-key" => login.signing_key = Some(line.to_owned()),
            "address" => login.address = Some(line.trim().to_owned()),
            "ca.crt" => login.ca = Some(text.to_owned()),
            "token" => login.headers.push((AUTHORIZATION, hidden(key, &format!("Bearer {line}"))?)),
            "username" => user = Some(line),
            "password" => password = Some(line),
            key => {
                // Others are perhaps somebody else's.
                let Some(name) = key.strip_prefix("header.") else { continue };
                let header: HeaderName = name.parse().map_err(|_| format!("{key} names no header"))?;
                if OURS.contains(&header.as_str()) {
                    return Err(format!("{key} is a header of the exchange itself"));
                }
                login.headers.push((header, hidden(key, line)?));
            }
        }
    }
    if user.is_some() || password.is_some() {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let both = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
        login.headers.push((AUTHORIZATION, hidden("password", &format!("Basic {}", BASE64_STANDARD.encode(both)))?));
    }
    if login.headers.iter().filter(|(name, _)| *name == AUTHORIZATION).count() > 1 {
        return Err("it has more than one of token, username and password, and header.Authorization".to_owned());
    }
    if login.ca.is_none() && login.headers.is_empty() && login.signing_key.is_none() && login.url.is_none() {
        return Err(format!(
            "it has none of {prefix}ca.crt, token, username, password, header.<Name>, signing-key and url"
        ));
    }
    Ok(login)
}

fn hidden(key: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| format!("{key} has characters that no header can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(of: &[(&str, &str)]) -> Secret {
        let data = of.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn says_how_to_log_in() {
        let headers = |of: &[(&str, &str)]| {
            let login = read(&secret(of), "").unwrap();
            login.headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(headers(&[("token", "abc\n")]), ["authorization: Bearer abc"]);
        assert_eq!(headers(&[("username", "me"), ("password", "it")]), ["authorization: Basic bWU6aXQ="]);
        assert_eq!(headers(&[("header.X-Key", "k"), ("other", "")]), ["x-key: k"]);
        assert_eq!(read(&secret(&[("ca.crt", "PEM\n")]), "").unwrap().ca.as_deref(), Some("PEM\n"));
        assert!(read(&secret(&[("token", "secret")]), "").unwrap().headers[0].1.is_sensitive(), "no log shows it");
    }

    #[test]
    fn is_sent_to_its_address_only() {
        let check = |of: &[(&str, &str)]| read(&secret(of), "").unwrap().check("http://p:9090/");
        assert_eq!(check(&[("token", "t"), ("address", "http://p:9090\n")]), Ok(()));
        assert_eq!(check(&[("ca.crt", "PEM")]), Ok(()), "a certificate is no secret");
        assert!(check(&[("token", "t"), ("address", "http://q")]).unwrap_err().contains("is for http://q"));
        assert!(check(&[("token", "t")]).unwrap_err().contains("add the key address with http://p:9090"));
    }

    #[test]
    fn what_cannot_be_used_is_named_but_not_shown() {
        for (of, says) in [
            (&[][..], "none of ca.crt"),
            (&[("token", "a\nb")], "token has characters"),
            (&[("token", "a"), ("username", "b")], "more than one"),
            (&[("header.a b", "c")], "names no header"),
            (&[("header.Host", "elsewhere")], "of the exchange itself"),
        ] {
            let why = read(&secret(of), "").unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let binary = Secret { data: Some([("token".into(), ByteString(vec![0xff]))].into()), ..Secret::default() };
        assert!(read(&binary, "").unwrap_err().contains("token is no text"));
    }
}
