//! The life of the webhooks' certificates: what to replace when. The rules:
//!
//! - A CA lives for a year, a serving certificate for ninety days; both are replaced at two thirds of that.
//! - A new CA first joins the old one in what the API server trusts. Only after [`SETTLE`] it signs the serving
//!   certificate: by then every API server has seen it. The old CA stays trusted until it ends.
//! - What cannot be read, does not fit together or has ended is made anew at once.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::extensions::GeneralName;

/// Life of a CA.
pub const CA_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Life of a serving certificate.
pub const SERVING_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// From the day on which a CA is first trusted until it signs.
pub const SETTLE: SignedDuration = SignedDuration::from_mins(10);
/// Certificates are valid from a little before they are made: clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// What is stored: PEM, the CAs with the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// All CAs that are trusted.
    pub ca: String,
    /// Key of the newest CA.
    pub ca_key: String,
    /// The serving certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// It could not be read.
    #[error("the certificate cannot be used: {0}")]
    Read(String),
}

/// What a certificate says.
#[derive(Debug)]
struct Facts {
    pem: String,
    subject: String,
    issuer: String,
    names: Vec<String>,
    from: Timestamp,
    to: Timestamp,
}

impl Facts {
    fn is_valid(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.to
    }

    /// Two thirds of its life, without what it is backdated.
    fn due(&self) -> Timestamp {
        let made = self.made();
        let life = self.to.duration_since(made);
        made.saturating_add(life * 2 / 3).unwrap_or(self.to)
    }

    fn made(&self) -> Timestamp {
        self.from.saturating_add(BACKDATED).unwrap_or(self.from)
    }
}

const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a PEM text, in order; what cannot be read is left out.
fn facts(pem: &str) -> Vec<Facts> {
    pem.split_inclusive(END).filter_map(read).collect()
}

fn read(block: &str) -> Option<Facts> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(block.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let at = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
    let names = certificate.subject_alternative_name().ok().flatten();
    Some(Facts {
        pem: format!("{}\n", block.trim()),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names.map(|n| n.value.general_names.iter().filter_map(name).collect()).unwrap_or_default(),
        from: at(certificate.validity().not_before)?,
        to: at(certificate.validity().not_after)?,
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => Some(IpAddr::from(four).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_string()),
        },
        _ => None,
    }
}

/// What has to be stored instead of `present`; `None` when it is good for now.
///
/// # Errors
/// The system gives no randomness.
pub fn renew(present: Option<&Certificates>, names: &[String], now: Timestamp) -> Result<Option<Certificates>, Error> {
    let trusted: Vec<Facts> = present.map(|p| facts(&p.ca)).unwrap_or_default();
    let trusted: Vec<Facts> = trusted.into_iter().filter(|ca| ca.is_valid(now)).collect();
    let issuer = present.zip(trusted.first()).and_then(|(present, newest)| issuer(newest, &present.ca_key));
    let serving = present.and_then(|present| {
        let cert = facts(&present.cert).into_iter().next()?;
        let is_good = cert.is_valid(now)
            && names.iter().all(|n| cert.names.contains(n))
            && trusted.iter().any(|ca| ca.subject == cert.issuer)
            && certified_key(&present.cert, &present.key).is_ok();
        is_good.then_some((cert, present))
    });
    let bundle = |cas: &[Facts]| cas.iter().map(|ca| ca.pem.as_str()).collect::<String>();

    let (Some(issuer), Some(newest)) = (issuer, trusted.first()) else {
        // What is still served stays trusted.
        let (ca, ca_key, issuer) = new_ca(now)?;
        let (cert, key) = new_serving(&issuer, names, now)?;
        return Ok(Some(Certificates { ca: ca + &bundle(&trusted), ca_key, cert, key }));
    };
    if let Some((_, present)) = &serving
        && newest.due() <= now
    {
        let (ca, ca_key, _) = new_ca(now)?;
        return Ok(Some(Certificates { ca: ca + &bundle(&trusted), ca_key, ..(*present).clone() }));
    }
    let ca_key = present.map(|p| p.ca_key.clone()).unwrap_or_default();
    let is_settled = newest.made().saturating_add(SETTLE).is_ok_and(|at| at <= now);
    match &serving {
        // One that is good is served until the new CA may sign, also when it is due: nobody looked for a while.
        Some(_) if !is_settled => Ok(None),
        Some((cert, _)) if cert.due() > now && cert.issuer == newest.subject => Ok(None),
        _ => {
            let (cert, key) = new_serving(&issuer, names, now)?;
            Ok(Some(Certificates { ca: bundle(&trusted), ca_key, cert, key }))
        }
    }
}

/// When to look again, from now.
pub fn next_look(present: &Certificates, now: Timestamp) -> Duration {
    let cas = facts(&present.ca);
    let serving = facts(&present.cert);
    let mut moments: Vec<Timestamp> = cas.first().into_iter().chain(serving.first()).map(Facts::due).collect();
    moments.extend(cas.iter().map(|ca| ca.to));
    if let (Some(newest), Some(serving)) = (cas.first(), serving.first())
        && newest.subject != serving.issuer
    {
        moments.extend(newest.made().saturating_add(SETTLE));
    }
    let next = moments.into_iter().filter(|at| *at > now).min();
    next.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or(Duration::from_secs(3600))
}

/// When the CA and the serving certificate end.
pub fn ends(present: &Certificates) -> Option<(Timestamp, Timestamp)> {
    Some((facts(&present.ca).first()?.to, facts(&present.cert).first()?.to))
}

/// When a serving certificate ends.
pub fn end(cert: &str) -> Option<Timestamp> {
    facts(cert).first().map(|f| f.to)
}

fn issuer(ca: &Facts, key: &str) -> Option<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(key).ok()?;
    // Signing with a key that is not the certificate's would give what nobody trusts.
    certified_key(&ca.pem, &key.serialize_pem()).ok()?;
    Some(Issuer::new(authority(ca.subject.strip_prefix("CN=")?), key))
}

/// What a CA says of itself, but for its time.
fn authority(name: &str) -> CertificateParams {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, name);
    ca
}

fn new_ca(now: Timestamp) -> Result<(String, String, Issuer<'static, KeyPair>), Error> {
    let key = KeyPair::generate()?;
    // A name of its own: two CAs are trusted at a time.
    let mut ca = authority(&format!("tidegate-webhook-ca-{}", now.as_second()));
    lasts(&mut ca, now, CA_LIFE);
    let (pem, key_pem) = (ca.self_signed(&key)?.pem(), key.serialize_pem());
    Ok((pem, key_pem, Issuer::new(ca, key)))
}

fn new_serving(issuer: &Issuer<'static, KeyPair>, names: &[String], now: Timestamp) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut cert = CertificateParams::new(names)?;
    cert.distinguished_name.push(DnType::CommonName, "tidegate-webhooks");
    cert.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    cert.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    cert.use_authority_key_identifier_extension = true;
    lasts(&mut cert, now, SERVING_LIFE);
    Ok((cert.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn lasts(params: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    let at = |by: SignedDuration| SystemTime::from(now.saturating_add(by).unwrap_or(now));
    params.not_before = at(-BACKDATED).into();
    params.not_after = at(life).into();
}

/// A certificate chain with its key, as the listener needs it.
///
/// # Errors
/// Either cannot be read, or they do not belong together.
pub fn certified_key(cert: &str, key: &str) -> Result<CertifiedKey, Error> {
    let wrong = |e: &dyn std::fmt::Display| Error::Read(e.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| wrong(&e))?;
    let provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|e| wrong(&e))?;
    certified.keys_match().map_err(|e| wrong(&e))?;
    Ok(certified)
}

#[cfg(test)]
mod tests;
