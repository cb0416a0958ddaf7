//! The library of scripts: those built in, and those of a ConfigMap.

use std::{collections::BTreeMap, fmt, path::Path, sync::LazyLock};

use include_dir::{Dir, include_dir};

use super::{Origin, Script};

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/lua-scripts");

/// Folder of the shared functions, which are no script.
const PRELUDE: &str = "prelude";

/// Its files, in the order in which they build on each other.
const PRELUDE_PARTS: &[&str] = &[
    "object",
    "services",
    "weights",
    "headers",
    "text",
    "matches",
    "routes",
    // One a family of gateways.
    "ingress",
    "status",
    "gateway_api",
    "gloo",
];

/// File name of the script of a kind.
const ROUTING: &str = "trafficRouting.lua";
/// File name of the script beside it that reads the status of a kind.
const ACCEPTED: &str = "accepted.lua";

/// Name of the ConfigMap that holds a cluster's own scripts, in the controller's namespace.
pub const CONFIG_MAP: &str = "kruise-rollout-configuration";

/// The class of an Ingress that names none.
pub const DEFAULT_INGRESS_CLASS: &str = "nginx";

/// Classes that share a script with another one. A script under the alias's own key of the ConfigMap comes first.
const INGRESS_ALIASES: [(&str, &str); 2] = [("aws-alb", "alb"), ("traefik-nginx", "nginx")];

/// No script for this kind or class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotFound {
    /// What needs a script, for example `networking.istio.io/VirtualService` or `ingress class nginx`.
    pub target: String,
    /// The built-in script looked for, for example `networking.istio.io/VirtualService/trafficRouting.lua`.
    pub built_in: String,
    /// The key looked for in ConfigMap [`CONFIG_MAP`].
    pub key: String,
    /// Whether there was a ConfigMap to look into.
    pub config_map_exists: bool,
    /// The Rollout's own namespace, where its ConfigMap was looked into too.
    pub namespace: Option<String>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.config_map_exists { "which has no such key" } else { "which does not exist" };
        write!(
            f,
            "no script for {}: there is no built-in {}, and none under key {} of ConfigMap {CONFIG_MAP}, {state}",
            self.target, self.built_in, self.key
        )?;
        if let Some(namespace) = &self.namespace {
            write!(f, ", nor of that of namespace {namespace}")?;
        }
        f.write_str("; add the script under that key")
    }
}

/// The library of scripts.
#[derive(Clone, Copy, Debug)]
pub struct Library;

impl Library {
    /// The built-in script for objects of this API group and kind.
    pub fn builtin(group: &str, kind: &str) -> Option<Script> {
        built_in(&custom_path(group, kind))
    }

    /// The built-in script for Ingresses of this class; an empty class means [`DEFAULT_INGRESS_CLASS`].
    pub fn ingress(class: &str) -> Option<Script> {
        built_in(&ingress_path(class))
    }

    /// The built-in script that reads the status of objects of this API group and kind.
    pub fn accepted(group: &str, kind: &str) -> Option<Script> {
        built_in(&accepted_path(group, kind))
    }

    /// All built-in scripts that change objects, by name.
    pub fn list() -> Vec<Script> {
        Library::all().into_iter().filter(|script| !is_accepted(script)).collect()
    }

    /// All built-in scripts that read a status, by name.
    pub fn list_accepted() -> Vec<Script> {
        Library::all().into_iter().filter(is_accepted).collect()
    }

    fn all() -> Vec<Script> {
        fn collect(dir: &'static Dir<'static>, scripts: &mut Vec<Script>) {
            for file in dir.files() {
                if file.path().extension().is_some_and(|e| e == "lua")
                    && let Some(script) = file.path().to_str().and_then(built_in)
                {
                    scripts.push(script);
                }
            }
            for sub in dir.dirs() {
                collect(sub, scripts);
            }
        }
        let mut scripts = Vec::new();
        // What lies in the folder itself, and the shared functions, are no scripts.
        for dir in BUILT_IN.dirs().filter(|d| d.path() != Path::new(PRELUDE)) {
            collect(dir, &mut scripts);
        }
        scripts.sort_by(|a, b| a.name.cmp(&b.name));
        scripts
    }

    /// API group and kind of all that have a built-in script of their own.
    pub fn kinds() -> Vec<(String, String)> {
        let target = |script: Script| {
            let (group, kind) = script.name.strip_suffix(ROUTING)?.strip_suffix('/')?.split_once('/')?;
            Some((group.to_owned(), kind.to_owned()))
        };
        Library::list().into_iter().filter_map(target).collect()
    }

    /// The shared functions that every script finds in its global `tidegate`: scripts `prelude/<part>.lua`, in the order
    /// in which they build on each other.
    pub fn shared() -> Vec<Script> {
        PRELUDE_PARTS.iter().filter_map(|part| built_in(&format!("{PRELUDE}/{part}.lua"))).collect()
    }

    /// The ConfigMap key of the script for objects of this API group and kind.
    pub fn key(group: &str, kind: &str) -> String {
        format!("lua.traffic.routing.{kind}.{group}")
    }

    /// The ConfigMap key of the script that reads the status of objects of this API group and kind.
    pub fn accepted_key(group: &str, kind: &str) -> String {
        format!("lua.traffic.accepted.{kind}.{group}")
    }

    /// The ConfigMap key of the script for Ingresses of this class.
    pub fn ingress_key(class: &str) -> String {
        format!("lua.traffic.routing.ingress.{}", class_or_default(class))
    }
}

/// The script for objects of this API group (without version) and kind: built in first, then the ConfigMap's, the
/// order of OpenKruise; the other way round when `config_map_wins`. `config_map` is the ConfigMap's `data`. A key
/// with nothing but white space counts as absent.
///
/// # Errors
/// [`NotFound`] when neither has one.
pub fn resolve(
    group: &str,
    kind: &str,
    config_map: Option<&BTreeMap<String, String>>,
    config_map_wins: bool,
) -> Result<Script, NotFound> {
    let key = Library::key(group, kind);
    let ours = || Library::builtin(group, kind);
    let theirs = || from_config_map(config_map, &key);
    let found = if config_map_wins { theirs().or_else(ours) } else { ours().or_else(theirs) };
    found.ok_or_else(|| NotFound {
        target: format!("{group}/{kind}"),
        built_in: custom_path(group, kind),
        key,
        config_map_exists: config_map.is_some(),
        namespace: None,
    })
}

/// What the ConfigMap of a Rollout's own namespace has for it, where the administrator lets namespaces bring scripts. They come last:
/// what is built in, and what the administrator's ConfigMap has, is the same in every namespace.
#[derive(Clone, Debug)]
pub struct OfNamespace {
    /// The namespace.
    pub namespace: String,
    /// `data` of its ConfigMap [`CONFIG_MAP`]; `None` when there is none.
    pub data: Option<BTreeMap<String, String>>,
}

impl OfNamespace {
    /// The script that was found elsewhere, or else the namespace's own.
    ///
    /// # Errors
    /// [`NotFound`] when it has none either.
    pub fn or_own(&self, found: Result<Script, NotFound>) -> Result<Script, NotFound> {
        found.or_else(|missing| {
            let own = self.script(&missing.key);
            own.ok_or_else(|| NotFound { namespace: Some(self.namespace.clone()), ..missing })
        })
    }

    /// The script under a key.
    pub fn script(&self, key: &str) -> Option<Script> {
        let script = from_config_map(self.data.as_ref(), key)?;
        let (namespace, name, key) = (self.namespace.clone(), CONFIG_MAP.to_owned(), key.to_owned());
        let called = format!("{namespace}/{}", script.name);
        Some(Script::new(called, script.source, Origin::ConfigMap { namespace, name, key }))
    }
}

/// The script that reads the status of objects of this API group and kind, in the order of [`resolve`]; none for a kind
/// that reports nothing.
pub fn resolve_accepted(
    group: &str,
    kind: &str,
    config_map: Option<&BTreeMap<String, String>>,
    config_map_wins: bool,
) -> Option<Script> {
    let ours = || Library::accepted(group, kind);
    let theirs = || from_config_map(config_map, &Library::accepted_key(group, kind));
    if config_map_wins { theirs().or_else(ours) } else { ours().or_else(theirs) }
}

/// The script for Ingresses of this class: the ConfigMap's first, then built in, the order of OpenKruise.
///
/// # Errors
/// [`NotFound`] when neither has one.
pub fn resolve_ingress(class: &str, config_map: Option<&BTreeMap<String, String>>) -> Result<Script, NotFound> {
    let key = Library::ingress_key(class);
    from_config_map(config_map, &key).or_else(|| Library::ingress(class)).ok_or_else(|| NotFound {
        target: format!("Ingress class {}", class_or_default(class)),
        built_in: ingress_path(class),
        key,
        config_map_exists: config_map.is_some(),
        namespace: None,
    })
}

fn class_or_default(class: &str) -> &str {
    if class.is_empty() { DEFAULT_INGRESS_CLASS } else { class }
}

fn custom_path(group: &str, kind: &str) -> String {
    format!("{group}/{kind}/{ROUTING}")
}

fn accepted_path(group: &str, kind: &str) -> String {
    format!("{group}/{kind}/{ACCEPTED}")
}

fn is_accepted(script: &Script) -> bool {
    script.name.rsplit('/').next() == Some(ACCEPTED)
}

/// Path of a class's built-in script.
pub(super) fn ingress_path(class: &str) -> String {
    let class = class_or_default(class);
    let alias = INGRESS_ALIASES.iter().find(|(alias, _)| *alias == class);
    format!("ingress/{}.lua", alias.map_or(class, |(_, of)| of))
}

fn built_in(path: &str) -> Option<Script> {
    /// Made once: clones share the text and its digest.
    static SCRIPTS: LazyLock<BTreeMap<&'static str, Script>> = LazyLock::new(|| {
        fn collect(dir: &'static Dir<'static>, scripts: &mut BTreeMap<&'static str, Script>) {
            for file in dir.files() {
                if let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8()) {
                    scripts.insert(path, Script::new(path, text, Origin::BuiltIn));
                }
            }
            dir.dirs().for_each(|sub| collect(sub, scripts));
        }
        let mut scripts = BTreeMap::new();
        collect(&BUILT_IN, &mut scripts);
        scripts
    });
    SCRIPTS.get(path).cloned()
}

fn from_config_map(config_map: Option<&BTreeMap<String, String>>, key: &str) -> Option<Script> {
    let text = config_map?.get(key).filter(|text| !text.trim().is_empty())?;
    // Without a namespace: the controller's own.
    let origin = Origin::ConfigMap { namespace: String::new(), name: CONFIG_MAP.to_owned(), key: key.to_owned() };
    Some(Script::new(format!("{CONFIG_MAP}/{key}"), text.as_str(), origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::{Acceptance, Caps};

    const GROUP: &str = "networking.istio.io";

    fn config_map() -> BTreeMap<String, String> {
        [
            ("lua.traffic.routing.VirtualService.networking.istio.io", "return 1"),
            ("lua.traffic.routing.Route.example.com", "return 2"),
            ("lua.traffic.routing.Empty.example.com", "  \n"),
            ("lua.traffic.routing.ingress.mine", "return 3"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }

    #[test]
    fn built_in_wins_unless_told_otherwise() {
        let map = config_map();
        if Library::builtin(GROUP, "VirtualService").is_some() {
            let script = resolve(GROUP, "VirtualService", Some(&map), false).unwrap();
            assert_eq!(script.origin, Origin::BuiltIn);
            assert_eq!(script.name, "networking.istio.io/VirtualService/trafficRouting.lua");
        }
        let script = resolve(GROUP, "VirtualService", Some(&map), true).unwrap();
        assert_eq!(&*script.source, "return 1");
        let script = resolve("example.com", "Route", Some(&map), false).unwrap();
        assert_eq!(&*script.source, "return 2");
        assert_eq!(resolve_ingress("mine", Some(&map)).unwrap().source.as_ref(), "return 3");
    }

    #[test]
    fn a_status_is_read_by_the_script_beside() {
        let key = Library::accepted_key("example.com", "Route");
        assert_eq!(key, "lua.traffic.accepted.Route.example.com");
        let map: BTreeMap<String, String> = [
            (key, "return 1".to_owned()),
            ("lua.traffic.accepted.HTTPRoute.gateway.networking.k8s.io".to_owned(), "return 2".to_owned()),
        ]
        .into();
        let found = |group: &str, kind: &str, wins: bool| {
            resolve_accepted(group, kind, Some(&map), wins).map(|script| script.origin == Origin::BuiltIn)
        };
        assert_eq!(found("example.com", "Route", false), Some(false));
        assert_eq!(found("gateway.networking.k8s.io", "HTTPRoute", false), Some(true));
        assert_eq!(found("gateway.networking.k8s.io", "HTTPRoute", true), Some(false));
        assert_eq!(found("traefik.io", "IngressRoute", true), None);
    }

    /// The header's class says whether a kind reports.
    #[test]
    fn kinds_that_report_have_a_script_that_reads_it() {
        for (group, kind) in Library::kinds() {
            let source = Library::builtin(&group, &kind).unwrap().source;
            let class = Caps::parse(&source).unwrap().unwrap().accept;
            let reports = matches!(class, Acceptance::A1 | Acceptance::A2 | Acceptance::A3);
            assert_eq!(Library::accepted(&group, &kind).is_some(), reports, "{group}/{kind}: {class:?}");
        }
    }

    #[test]
    fn what_a_namespace_brings_comes_last() {
        let own = OfNamespace { namespace: "shop".to_owned(), data: Some(config_map()) };
        let found = |group: &str, kind: &str, cluster: Option<&BTreeMap<String, String>>| {
            own.or_own(resolve(group, kind, cluster, false)).map(|script| (script.name, script.source.to_string()))
        };
        let cluster = BTreeMap::from([("lua.traffic.routing.Route.example.com".to_owned(), "return 9".to_owned())]);
        let key = "kruise-rollout-configuration/lua.traffic.routing.Route.example.com";
        let told = |name: &str, text: &str| Ok((name.to_owned(), text.to_owned()));
        assert_eq!(found("example.com", "Route", Some(&cluster)), told(key, "return 9"));
        assert_eq!(found("example.com", "Route", None), told(&format!("shop/{key}"), "return 2"));
        assert_eq!(
            found(GROUP, "VirtualService", None).unwrap().0,
            "networking.istio.io/VirtualService/trafficRouting.lua"
        );
        let class = own.or_own(resolve_ingress("mine", None)).unwrap();
        let origin = |key: &str| Origin::ConfigMap {
            namespace: "shop".to_owned(),
            name: CONFIG_MAP.to_owned(),
            key: key.to_owned(),
        };
        assert_eq!(class.origin, origin("lua.traffic.routing.ingress.mine"));
        let error = found("example.com", "Empty", Some(&cluster)).unwrap_err().to_string();
        assert!(error.contains("which has no such key, nor of that of namespace shop; add the script"), "{error}");
    }

    #[test]
    fn not_found_names_both_places() {
        let error = resolve("example.com", "Empty", Some(&config_map()), false).unwrap_err().to_string();
        for part in ["example.com/Empty/trafficRouting.lua", "lua.traffic.routing.Empty.example.com", CONFIG_MAP] {
            assert!(error.contains(part), "{error}");
        }
        assert!(error.contains("no such key"), "{error}");
        let error = resolve("", "Thing", None, false).unwrap_err().to_string();
        assert!(error.contains("does not exist") && error.contains("lua.traffic.routing.Thing."), "{error}");
        let error = resolve_ingress("", None).map(|_| ()).map_err(|e| e.key);
        assert!(error.is_ok() || error == Err("lua.traffic.routing.ingress.nginx".to_owned()));
    }
}
