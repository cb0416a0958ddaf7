//! What a script can do, as its header comment says: feeds `tidegate lua list`, documents and checks before a release.
//!
//! ```text
//! -- caps: weight,header,query,path; accept: A4
//! -- versions: v1, v1beta1
//! -- grace: 10
//! ```

use std::collections::BTreeSet;

use serde::Serialize;

/// One thing that a script can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Steps with a share of requests.
    Weight,
    /// Steps that choose requests by header.
    Header,
    /// Steps that choose requests by query parameter.
    Query,
    /// Steps that choose requests by path.
    Path,
    /// Conditions of type RegularExpression.
    Regex,
    /// `requestHeaderModifier`.
    Rhm,
    /// A weight counts beside matches; elsewhere matches win.
    Both,
    /// No canary Service: a subset or pod label tells the versions apart.
    Subset,
    /// Rules that match on a method keep it.
    Method,
    /// Requests can be told apart by cookie.
    Cookie,
    /// Mirrors of a rule stay, and go with a canary rule.
    Mirror,
    /// Session affinity stays, and goes with a canary rule.
    Sticky,
    /// The stable Service may be there more than once, by port.
    Ports,
    /// Other backends of a rule keep their share.
    Several,
    /// HTTP routes.
    Http,
    /// gRPC routes.
    Grpc,
    /// TCP routes.
    Tcp,
    /// TLS routes, by server name.
    Tls,
    /// UDP routes.
    Udp,
}

impl Feature {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Feature; 19] = [
        Feature::Weight,
        Feature::Header,
        Feature::Query,
        Feature::Path,
        Feature::Regex,
        Feature::Rhm,
        Feature::Both,
        Feature::Subset,
        Feature::Method,
        Feature::Cookie,
        Feature::Mirror,
        Feature::Sticky,
        Feature::Ports,
        Feature::Several,
        Feature::Http,
        Feature::Grpc,
        Feature::Tcp,
        Feature::Tls,
        Feature::Udp,
    ];

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Weight => "weight",
            Feature::Header => "header",
            Feature::Query => "query",
            Feature::Path => "path",
            Feature::Regex => "regex",
            Feature::Rhm => "rhm",
            Feature::Both => "both",
            Feature::Subset => "subset",
            Feature::Method => "method",
            Feature::Cookie => "cookie",
            Feature::Mirror => "mirror",
            Feature::Sticky => "sticky",
            Feature::Ports => "ports",
            Feature::Several => "several",
            Feature::Http => "http",
            Feature::Grpc => "grpc",
            Feature::Tcp => "tcp",
            Feature::Tls => "tls",
            Feature::Udp => "udp",
        }
    }
}

/// What tells that a gateway has taken a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Acceptance {
    /// Conditions of the object, with the generation that they speak of.
    A1,
    /// Conditions without a generation.
    A2,
    /// A word of state, without a generation.
    A3,
    /// An admission webhook; nothing afterwards.
    A4,
    /// Nothing in the cluster: the cloud's own interface.
    A5,
    /// Nothing.
    A6,
}

impl Acceptance {
    const ALL: [(&'static str, Acceptance); 6] = [
        ("A1", Acceptance::A1),
        ("A2", Acceptance::A2),
        ("A3", Acceptance::A3),
        ("A4", Acceptance::A4),
        ("A5", Acceptance::A5),
        ("A6", Acceptance::A6),
    ];
}

/// What a script's header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caps {
    /// Versions of the API that it was written for.
    pub versions: Vec<String>,
    /// What it can do.
    pub features: BTreeSet<Feature>,
    /// How it is known that the gateway took a change.
    pub accept: Acceptance,
    /// Seconds after which the gateway, as it comes, has taken a change: what is waited for, where nothing tells and the
    /// user says no number, before pods go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<i64>,
}

/// Lines of a header.
const LINES: [&str; 3] = ["caps:", "versions:", "grace:"];
/// Longer than any gateway needs, in seconds.
const MOST_GRACE: i64 = 3600;

impl Caps {
    /// Reads the comment at the beginning of a script; none when it has no `caps` line, as scripts of OpenKruise.
    ///
    /// # Errors
    /// When there is one with an unknown feature or class, without a class or versions, or with a grace time that is none.
    pub fn parse(source: &str) -> Result<Option<Caps>, String> {
        let mut fields = source
            .lines()
            .map_while(|line| line.trim_start().strip_prefix("--"))
            .map(str::trim)
            .filter(|line| LINES.iter().any(|known| line.starts_with(known)))
            .flat_map(|line| line.split(';'))
            .filter_map(|field| field.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect::<Vec<_>>();
        if !fields.iter().any(|(name, _)| *name == "caps") {
            return Ok(None);
        }
        let mut take = |wanted: &str| {
            let at = fields.iter().position(|(name, _)| *name == wanted);
            at.map(|at| fields.remove(at).1).filter(|value| !value.is_empty())
        };
        let words = |text: &str| text.split(',').map(|w| w.trim().to_owned()).collect::<Vec<_>>();
        let features = words(take("caps").unwrap_or_default()).into_iter().map(feature).collect::<Result<_, _>>()?;
        let class = take("accept").ok_or("the header has no acceptance class; add `; accept: A4` to the caps line")?;
        let accept = Acceptance::ALL.iter().find(|(name, _)| *name == class).map(|(_, a)| *a);
        let accept = accept.ok_or_else(|| format!("accept: {class} is no class; use A1 to A6"))?;
        let versions = take("versions").ok_or("the header names no versions; add a line `-- versions: v1`")?;
        let versions = words(versions);
        let grace = take("grace").map(seconds).transpose()?;
        match fields.first() {
            Some((name, _)) => Err(format!("the header says {name} twice, or {name} means nothing there")),
            None => Ok(Some(Caps { versions, features, accept, grace })),
        }
    }
}

fn seconds(text: &str) -> Result<i64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0..=MOST_GRACE).contains(seconds));
    seconds.ok_or_else(|| format!("grace: {text:?} is no number of seconds from 0 to {MOST_GRACE}"))
}

fn feature(word: String) -> Result<Feature, String> {
    Feature::ALL.into_iter().find(|f| f.name() == word).ok_or_else(|| {
        let known: Vec<&str> = Feature::ALL.into_iter().map(Feature::name).collect();
        format!("caps: {word:?} is no feature; known are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::Library;

    #[test]
    fn every_built_in_script_has_a_header() {
        let scripts = Library::list();
        assert!(!scripts.is_empty());
        for script in scripts {
            let caps = Caps::parse(&script.source).unwrap_or_else(|e| panic!("{}: {e}", script.name));
            let caps = caps.unwrap_or_else(|| panic!("{}: no `-- caps:` line in its first comment", script.name));
            assert!(!caps.features.is_empty() && !caps.versions.is_empty(), "{}: {caps:?}", script.name);
        }
    }

    #[test]
    fn reads_the_first_comment() {
        let text =
            "-- A script.\n-- caps: weight, header,http; accept: A1\n-- versions: v1,v1beta1\n\n-- caps: nonsense";
        let caps = Caps::parse(text).unwrap().unwrap();
        assert_eq!(caps.versions, ["v1", "v1beta1"]);
        assert_eq!(caps.features, BTreeSet::from([Feature::Weight, Feature::Header, Feature::Http]));
        assert_eq!((caps.accept, caps.grace), (Acceptance::A1, None));
        let text = "-- caps: weight; accept: A6\n-- versions: v1\n-- grace: 10";
        assert_eq!(Caps::parse(text).unwrap().unwrap().grace, Some(10));
        for without in ["", "return obj.data", "-- about caps\nlocal a = 1\n-- caps: weight", "-- versions: v1"] {
            assert_eq!(Caps::parse(without), Ok(None), "{without}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("-- caps: weihgt; accept: A1\n-- versions: v1", "\"weihgt\" is no feature"),
            ("-- caps: ; accept: A1\n-- versions: v1", "\"\" is no feature"),
            ("-- caps: weight\n-- versions: v1", "no acceptance class"),
            ("-- caps: weight; accept: A7\n-- versions: v1", "A7 is no class"),
            ("-- caps: weight; accept: A1", "no versions"),
            ("-- caps: weight; accept: A1; speed: high\n-- versions: v1", "says speed"),
            ("-- caps: weight; accept: A1\n-- versions: v1\n-- caps: path", "says caps twice"),
            ("-- caps: weight; accept: A1\n-- versions: v1\n-- grace: 10s", "\"10s\" is no number of seconds"),
            ("-- caps: weight; accept: A1\n-- versions: v1\n-- grace: -1", "from 0 to 3600"),
        ] {
            let error = Caps::parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_those_of_the_output() {
        for feature in Feature::ALL {
            assert_eq!(serde_json::to_value(feature).unwrap(), feature.name());
        }
    }
}
