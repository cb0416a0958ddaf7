use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{ServerName, UnixTime},
};

use super::*;

const NAME: &str = "tidegate-webhooks.tidegate.svc";

fn names() -> Vec<String> {
    vec![NAME.to_owned(), "10.0.0.1".to_owned()]
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// Whether a client that trusts `ca` accepts what is served at `now`.
fn is_accepted(ca: &str, cert: &str, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(ca.unwrap()).unwrap();
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
    verifier.verify_server_cert(&cert, &[], &ServerName::try_from(NAME).unwrap(), &[], now).is_ok()
}

fn made(now: Timestamp) -> Certificates {
    renew(None, &names(), now).unwrap().expect("made anew")
}

#[test]
fn a_new_pair_is_served_and_trusted_and_good_for_sixty_days() {
    let now = start();
    let first = made(now);
    assert!(is_accepted(&first.ca, &first.cert, now));
    assert!(first.key.contains("PRIVATE KEY") && certified_key(&first.cert, &first.key).is_ok());
    let facts = read(&first.cert).unwrap();
    assert_eq!(facts.names, names());
    let day = SignedDuration::from_hours(24);
    assert_eq!(renew(Some(&first), &names(), now + day * 59).unwrap(), None);
    assert_eq!(next_look(&first, now), Duration::from_secs(60 * 86_400));
    let second = renew(Some(&first), &names(), now + day * 60).unwrap().expect("two thirds");
    assert_eq!((&second.ca, &second.ca_key), (&first.ca, &first.ca_key));
    assert!(second.cert != first.cert && is_accepted(&first.ca, &second.cert, now + day * 60));
}

/// Three years, looked at whenever it is due. At every moment a client that is up to ten minutes behind in what it trusts
/// accepts what is served, and one that is up to date accepts what a replica up to ten minutes behind serves.
#[test]
fn nobody_is_ever_turned_away() {
    // Nobody looks for some days whenever it is due, so that a CA and what it signed are due together.
    for days in [0, 1, 3, 5, 12, 20] {
        let (cas, certs) = three_years(days);
        assert!(cas >= 3 && certs > 10, "{days} days late: {cas} CAs, {certs} serving certificates");
    }
}

/// How often each was made anew, by somebody who looks so many days late.
fn three_years(days: i64) -> (usize, usize) {
    let mut now = start();
    let mut history = vec![(now, made(now))];
    let (mut cas, mut certs) = (0, 0);
    while now < start() + SignedDuration::from_hours(3 * 365 * 24) {
        let present = history.last().unwrap().1.clone();
        let wait = next_look(&present, now);
        let is_long = wait > SETTLE.unsigned_abs();
        now = now + wait + SignedDuration::from_hours(if is_long { 24 * days } else { 0 });
        let Some(next) = renew(Some(&present), &names(), now).unwrap() else { continue };
        assert_eq!(renew(Some(&next), &names(), now).unwrap(), None, "again at once, at {now}, {days} days late");
        cas += usize::from(next.ca_key != present.ca_key);
        certs += usize::from(next.cert != present.cert);
        let late = now + SETTLE - SignedDuration::from_secs(1);
        for (ca, cert, what) in [
            (&present.ca, &next.cert, "a client that does not know the new CA yet"),
            (&next.ca, &present.cert, "a replica that serves the old certificate still"),
            (&next.ca, &next.cert, "both up to date"),
        ] {
            assert!(is_accepted(ca, cert, now) && is_accepted(ca, cert, late), "{what}, at {now}, {days} days late");
        }
        assert!(facts(&next.ca).len() <= 2, "CAs pile up");
        history.push((now, next));
    }
    (cas, certs)
}

#[test]
fn what_cannot_be_used_is_made_anew() {
    let now = start();
    let (good, other) = (made(now), made(now + SignedDuration::from_secs(5)));
    let broken: Vec<(&str, Certificates)> = vec![
        ("no CA", Certificates { ca: String::new(), ..good.clone() }),
        ("not a CA", Certificates { ca: "rubbish".to_owned(), ..good.clone() }),
        ("another CA's key", Certificates { ca_key: other.ca_key.clone(), ..good.clone() }),
        ("another key", Certificates { key: other.key.clone(), ..good.clone() }),
        ("another CA's certificate", Certificates { cert: other.cert.clone(), key: other.key.clone(), ..good.clone() }),
        ("no key", Certificates { key: String::new(), ..good.clone() }),
        ("cut off", Certificates { cert: good.cert[..200].to_owned(), ..good.clone() }),
    ];
    for (what, present) in broken {
        let next = renew(Some(&present), &names(), now).unwrap().unwrap_or_else(|| panic!("{what} is kept"));
        assert!(is_accepted(&next.ca, &next.cert, now), "{what}");
        assert_eq!(renew(Some(&next), &names(), now).unwrap(), None, "{what}: not settled");
    }
    // The Service got another name.
    let renamed = renew(Some(&good), &["elsewhere.tidegate.svc".to_owned()], now).unwrap().expect("another name");
    assert_eq!(renamed.ca, good.ca);
    // Nobody looked for years.
    let late = now + CA_LIFE * 3;
    let next = renew(Some(&good), &names(), late).unwrap().expect("all have ended");
    assert!(is_accepted(&next.ca, &next.cert, late) && facts(&next.ca).len() == 1);
}
