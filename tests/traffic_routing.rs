//! A TrafficRouting that several Rollouts share, decided pass by pass on the toy cluster of `tests/world/`. Every write
//! passes the guard.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod world;

use std::{fs, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    api::{
        keys, object,
        v1alpha1::TrafficRouting,
        v1beta1::{Rollout, RolloutStatus},
    },
    apply::{Reach, guard},
    gather::{collect, collect::Settings, collect_routing},
    lua::{Engine, Limits},
    rollout::{Effect, decide, plan::Purpose, traffic_routing::decide_routing},
    traffic::memory::Memory,
    yaml,
};
use world::{Key, World, policy, settings};

const GROUP: &str = "rollouts.kruise.io";
const NAMESPACE: &str = "demo";

struct Stage {
    world: World,
    engine: Engine,
    now: Timestamp,
    purposes: Vec<Purpose>,
    events: Vec<(&'static str, String)>,
    settings: Settings,
}

fn key(kind: &str, name: &str) -> Key {
    (GROUP.to_owned(), kind.to_owned(), NAMESPACE.to_owned(), name.to_owned())
}

fn routing(name: &str, strategy: Value) -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1alpha1", "kind": "TrafficRouting", "metadata": {"name": name}, "spec": {
        "objectRef": [{"service": "nginx-service", "customNetworkRefs": [
            {"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "name": "nginx-vs"},
            {"apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule", "name": "nginx-dr"}]}],
        "strategy": strategy}})
}

fn headers() -> Value {
    json!({"matches": [{"headers": [{"type": "Exact", "name": "user", "value": "tester"}]}]})
}

impl Stage {
    /// The gateway's objects of examples/istio, and Deployments `a` and `b` with a Rollout each.
    fn new(routing: Option<Value>) -> Stage {
        let mut world = World::default();
        policy().into_iter().for_each(|o| world.create(o));
        let read = |file: &str| {
            let path = format!("{}/examples/istio/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
            yaml::from_str_multi(&fs::read_to_string(path).unwrap()).unwrap()
        };
        for file in ["service", "virtualservice", "destinationrule"] {
            read(file).into_iter().for_each(|o| world.create(o));
        }
        for name in ["a", "b"] {
            let mut deployment = read("deployment").remove(0);
            deployment["metadata"]["name"] = json!(name);
            for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
                deployment.pointer_mut(labels).unwrap()["app"] = json!(name);
            }
            world.create(deployment);
            world.create(
                json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": name},
                "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                    "strategy": {"canary": {"enableExtraWorkloadForCanary": true, "trafficRoutingRef": "gate",
                        "steps": [{"replicas": 1}, {"replicas": "100%", "pause": {"duration": 0}}]}}}}),
            );
        }
        routing.into_iter().for_each(|routing| world.create(routing));
        let engine = Engine::with_limits(1, Limits { wall: Duration::from_secs(60), ..Limits::default() });
        let mut stage = Stage {
            world,
            engine,
            now: "2026-11-22T06:00:00Z".parse().unwrap(),
            purposes: Vec::new(),
            events: Vec::new(),
            settings: settings(),
        };
        stage.rest();
        stage
    }

    fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        let found = self.world.objects.iter().find(|((_, k, _, n), _)| (k.as_str(), n.as_str()) == (kind, name));
        found.map(|(_, object)| object.as_ref())
    }

    fn write(&mut self, effects: &[Effect], reach: &Reach) {
        for effect in effects {
            guard::check(effect, reach, &self.world).unwrap();
            self.purposes.push(effect.purpose());
            self.world.write(effect, self.now).unwrap();
        }
    }

    /// One pass over a Rollout; whether it moved anything.
    fn pass(&mut self, name: &str) -> bool {
        let Some(object) = self.get("Rollout", name) else { return false };
        let rollout: Rollout = serde_json::from_value(object.clone()).unwrap();
        let plan = decide(&collect(&self.world, rollout.clone(), self.now, &self.engine, &settings()).unwrap());
        self.write(&plan.effects, &Reach::of(&rollout));
        let changed = rollout.status.as_ref() != Some(&plan.status);
        self.world.set_status(&key("Rollout", name), serde_json::to_value(&plan.status).unwrap());
        !plan.effects.is_empty() || changed || plan.requeue.is_some()
    }

    fn pass_routing(&mut self, name: &str) -> bool {
        let Some(object) = self.get("TrafficRouting", name) else { return false };
        let routing: TrafficRouting = serde_json::from_value(object.clone()).unwrap();
        let snapshot = collect_routing(&self.world, routing.clone(), self.now, &self.engine, &self.settings).unwrap();
        let plan = decide_routing(&snapshot);
        assert_eq!(plan, decide_routing(&snapshot), "one snapshot, two plans");
        self.write(&plan.effects, &Reach::of_routing(&routing));
        self.events.extend(plan.events.iter().map(|e| (e.reason, e.message.clone())));
        let changed = routing.status.as_ref() != Some(&plan.status);
        self.world.set_status(&key("TrafficRouting", name), serde_json::to_value(&plan.status).unwrap());
        !plan.effects.is_empty() || changed || plan.requeue.is_some()
    }

    /// Until nothing moves.
    fn rest(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_secs(1);
            let moved = [self.pass("a"), self.pass("b"), self.pass_routing("gate"), self.world.tick()];
            if moved == [false; 4] {
                return;
            }
        }
        panic!("it does not come to rest: {:?} {:?}", self.status("a"), self.get("TrafficRouting", "gate"));
    }

    fn release(&mut self, name: &str) {
        self.world.edit("Deployment", name, |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:next");
        });
        self.rest();
    }

    fn approve(&mut self, name: &str) {
        self.world.edit("Rollout", name, |r| {
            assert_eq!(r["status"]["canaryStatus"]["currentStepState"], "StepPaused", "{}", r["status"]);
            r["status"]["canaryStatus"]["currentStepState"] = json!("StepReady");
        });
        self.rest();
    }

    fn status(&self, name: &str) -> RolloutStatus {
        serde_json::from_value(self.get("Rollout", name).unwrap()["status"].clone()).unwrap()
    }

    fn routing(&self) -> (String, String, Vec<String>) {
        let routing = self.get("TrafficRouting", "gate").unwrap();
        let status = &routing["status"];
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        let finalizers = object::finalizers(routing).into_iter().map(str::to_owned).collect();
        (text("phase"), text("message"), finalizers)
    }

    fn is_routed(&self) -> bool {
        let is_kept = |kind, name| object::annotation(self.get(kind, name).unwrap(), keys::ORIGINAL_SPEC).is_some();
        let both = [is_kept("VirtualService", "nginx-vs"), is_kept("DestinationRule", "nginx-dr")];
        assert_eq!(both[0], both[1]);
        both[0]
    }

    fn specs(&self) -> [Value; 2] {
        [("VirtualService", "nginx-vs"), ("DestinationRule", "nginx-dr")].map(|(kind, name)| {
            let object = self.get(kind, name).unwrap();
            json!([object["spec"], object["metadata"]["annotations"], object["metadata"]["labels"]])
        })
    }
}

fn own() -> String {
    keys::TRAFFIC_ROUTING_FINALIZER.to_owned()
}

fn of(rollout: &str) -> String {
    format!("{}{rollout}", keys::PROGRESSING_FINALIZER)
}

#[test]
fn the_object_is_put_back_when_the_last_rollout_leaves() {
    let mut stage = Stage::new(Some(routing("gate", headers())));
    let before = stage.specs();
    assert_eq!(stage.routing(), ("Healthy".into(), "TrafficRouting is Healthy".into(), vec![own()]));
    assert!(!stage.is_routed());

    stage.release("a");
    assert_eq!(stage.routing(), ("Progressing".into(), "TrafficRouting is Progressing".into(), vec![own(), of("a")]));
    assert!(stage.is_routed());
    // The routes to new pods come when there are some, the subset before them.
    let scaled = stage.purposes.iter().position(|p| *p == Purpose::ScaleCanary).unwrap();
    let shared = stage.purposes.iter().position(|p| *p == Purpose::ShareRoutes).unwrap();
    let routed = stage.purposes.iter().position(|p| *p == Purpose::RouteStep).unwrap();
    assert!(scaled < shared && shared < routed, "{:?}", stage.purposes);

    let routed = stage.specs();
    stage.release("b");
    assert_eq!(stage.routing().2, vec![own(), of("a"), of("b")]);
    stage.approve("a");
    assert_eq!(stage.status("a").phase, "Healthy");
    assert_eq!((stage.routing().0.as_str(), stage.routing().2), ("Progressing", vec![own(), of("b")]));
    assert_eq!(stage.specs(), routed, "b still needs the routes");

    stage.purposes.clear();
    stage.approve("b");
    assert_eq!(stage.status("b").phase, "Healthy");
    assert_eq!(stage.routing(), ("Healthy".into(), "TrafficRouting is Healthy".into(), vec![own()]));
    assert_eq!(stage.specs(), before);
    // Requests leave before the pods go.
    let restored = stage.purposes.iter().rposition(|p| *p == Purpose::RestoreRoutes).unwrap();
    let deleted = stage.purposes.iter().position(|p| *p == Purpose::DeleteCanary).unwrap();
    assert!(restored < deleted, "{:?}", stage.purposes);
}

#[test]
fn a_rollback_a_disabled_and_a_deleted_rollout_leave_too() {
    let endings: [fn(&mut Stage); 3] = [
        |stage| {
            let sets = stage.world.of_kind("ReplicaSet");
            let old = sets.filter(|s| object::name(s).starts_with("a-")).min_by_key(|s| object::name(s).len());
            let mut template = old.unwrap()["spec"]["template"].clone();
            template["metadata"]["labels"].as_object_mut().unwrap().remove("pod-template-hash");
            stage.world.edit("Deployment", "a", |d| d["spec"]["template"]["spec"] = template["spec"].clone());
        },
        |stage| assert!(stage.world.edit("Rollout", "a", |r| r["spec"]["disabled"] = json!(true))),
        |stage| stage.world.request_deletion(&key("Rollout", "a"), stage.now),
    ];
    for (i, end) in endings.into_iter().enumerate() {
        let mut stage = Stage::new(Some(routing("gate", headers())));
        let before = stage.specs();
        stage.release("a");
        assert!(stage.is_routed());
        end(&mut stage);
        stage.rest();
        assert_eq!((stage.routing().0.as_str(), stage.routing().2), ("Healthy", vec![own()]), "{i}");
        assert_eq!(stage.specs(), before, "{i}");
        assert!(stage.get("Deployment", "a-canary").is_none(), "{i}");
    }
}

#[test]
fn d_30_the_field_and_the_annotation_name_it() {
    let mut stage = Stage::new(Some(routing("gate", headers())));
    stage.world.edit("Rollout", "a", |r| {
        r["spec"]["strategy"]["canary"].as_object_mut().unwrap().remove("trafficRoutingRef");
        r["metadata"]["annotations"] = json!({keys::TRAFFIC_ROUTING: "gate"});
    });
    stage.release("a");
    assert_eq!(stage.routing().2, vec![own(), of("a")]);
    stage.world.edit("Rollout", "b", |r| r["metadata"]["annotations"] = json!({keys::TRAFFIC_ROUTING: "other"}));
    stage.rest();
    let message = stage.status("b").message;
    assert!(message.contains("\"gate\"") && message.contains("\"other\"") && message.contains("keep one"), "{message}");
}

#[test]
fn d_41_finalizers_of_rollouts_that_are_gone_are_cleaned() {
    let mut stage = Stage::new(Some(routing("gate", headers())));
    let before = stage.specs();
    stage.world.edit("TrafficRouting", "gate", |t| t["metadata"]["finalizers"] = json!(["theirs", own(), of("gone")]));
    stage.rest();
    assert_eq!(stage.routing().2, vec!["theirs".to_owned(), own()]);

    // One that names another TrafficRouting in the middle of a release will not come back for its own either.
    stage.release("a");
    assert!(stage.is_routed());
    stage.world.edit("Rollout", "a", |r| r["spec"]["strategy"]["canary"]["trafficRoutingRef"] = json!("other"));
    stage.rest();
    assert_eq!((stage.routing().0.as_str(), stage.specs()), ("Healthy", before));
}

#[test]
fn d_41_a_deleted_traffic_routing_goes_when_everything_is_put_back() {
    let mut stage = Stage::new(Some(routing("gate", headers())));
    let before = stage.specs();
    stage.release("a");
    stage.world.request_deletion(&key("TrafficRouting", "gate"), stage.now);
    while stage.get("TrafficRouting", "gate").is_some_and(|t| object::finalizers(t).contains(&own().as_str())) {
        assert!(stage.pass_routing("gate"), "{:?}", stage.routing());
        stage.now += Duration::from_secs(1);
        if !object::finalizers(stage.get("TrafficRouting", "gate").unwrap()).contains(&own().as_str()) {
            assert!(!stage.is_routed());
        }
    }
    assert_eq!(stage.specs(), before);
    // The Rollout says what is wrong, and what it still holds goes with its release.
    stage.rest();
    assert!(stage.status("a").message.contains("TrafficRouting gate is being deleted"), "{:?}", stage.status("a"));
    stage.world.edit("Rollout", "a", |r| r["spec"]["disabled"] = json!(true));
    stage.rest();
    assert!(stage.get("TrafficRouting", "gate").is_none());
}

#[test]
fn d_04_one_service_for_both_versions_destroys_no_route() {
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
        "spec": {"rules": [{"backendRefs": [{"kind": "Service", "name": "nginx-service", "port": 80}]},
            {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}]}});
    for strategy in [headers(), json!({"weight": 20})] {
        let mut gate = routing("gate", strategy);
        gate["spec"]["objectRef"][0] = json!({"service": "nginx-service", "gateway": {"httpRouteName": "web"}});
        let mut stage = Stage::new(None);
        stage.world.create(route.clone());
        stage.world.create(gate);
        stage.rest();
        stage.release("a");
        let live = &stage.get("HTTPRoute", "web").unwrap()["spec"];
        for rule in route["spec"]["rules"].as_array().unwrap() {
            let backends = |r: &Value| r["backendRefs"][0]["name"].clone();
            let rules = live["rules"].as_array().unwrap();
            assert!(rules.iter().any(|r| backends(r) == backends(rule)), "{live}");
        }
        stage.world.edit("Rollout", "a", |r| r["spec"]["disabled"] = json!(true));
        stage.rest();
        assert_eq!(stage.get("HTTPRoute", "web").unwrap()["spec"], route["spec"], "{:?}", stage.routing());
    }
}

#[test]
fn what_is_missing_is_said_before_the_first_pod() {
    let mut stage = Stage::new(None);
    stage.release("a");
    assert_eq!(
        stage.status("a").message,
        "TrafficRouting gate does not exist; create it, or correct trafficRoutingRef"
    );
    assert!(stage.get("Deployment", "a-canary").is_none());

    let mut bad = routing("gate", headers());
    bad["spec"]["objectRef"][0]["service"] = json!("nobody");
    stage.world.create(bad);
    stage.rest();
    let (phase, message, finalizers) = stage.routing();
    assert_eq!((phase.as_str(), finalizers), ("Initial", vec![own(), of("a")]));
    assert_eq!(message, "Service nobody does not exist; create it, or correct spec.objectRef[0].service");
    let says = stage.status("a").message;
    assert_eq!(says, format!("waiting for TrafficRouting gate to route; it says: {message}"));

    stage.world.edit("TrafficRouting", "gate", |t| t["spec"]["objectRef"][0]["service"] = json!("nginx-service"));
    stage.rest();
    assert_eq!(stage.routing().0, "Progressing");
    assert!(stage.is_routed());
}

/// The thin controller around the decision, in virtual time.
mod controller {
    use kube::{
        Api,
        api::{ApiResource, DynamicObject, Patch, PatchParams},
        core::GroupVersionKind,
    };
    use tidegate::{
        cli::demo::world::{CONTROLLER, install, start_controller},
        sim::{Cluster, Gvr},
    };
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_routes_rests_and_restores() {
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").namespace(NAMESPACE).seed(3);
        for (plural, kind) in [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule")] {
            builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
        }
        let stage = Stage::new(Some(routing("gate", headers())));
        for ((_, kind, _, _), object) in &stage.world.objects {
            if ["Deployment", "Service", "VirtualService", "DestinationRule", "TrafficRouting", "Rollout"]
                .contains(&kind.as_str())
            {
                let mut object = (**object).clone();
                object.as_object_mut().unwrap().remove("status");
                let name = object["metadata"]["name"].clone();
                object["metadata"] = json!({"name": name, "namespace": NAMESPACE});
                builder = builder.object(object);
            }
        }
        let cluster = builder.build().unwrap();
        let view = cluster.view();
        let get = |group: &str, version: &str, plural: &str, name: &str| {
            view.get(&Gvr::new(group, version, plural), NAMESPACE, name).map(|o| (*o).clone()).unwrap_or_default()
        };
        let gate = || get(GROUP, "v1alpha1", "trafficroutings", "gate");
        let routes = || get("networking.istio.io", "v1", "virtualservices", "nginx-vs");
        let original = routes()["spec"].clone();
        let stop = CancellationToken::new();
        start_controller(&cluster, cluster.client(CONTROLLER), stop.clone());
        let until = async |what: &str, is_so: &dyn Fn() -> bool| {
            for _ in 0..3000 {
                if is_so() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("never: {what}: {} {}", gate(), get(GROUP, "v1beta1", "rollouts", "a")["status"]);
        };
        until("healthy", &|| {
            gate()["status"]["phase"] == "Healthy"
                && get(GROUP, "v1beta1", "rollouts", "a")["status"]["phase"] == "Healthy"
        })
        .await;

        let client = cluster.client("user");
        let edit = async |group: &str, version: &str, kind: &str, patch: Value| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
            api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        };
        let template = json!({"metadata": {"annotations": {"release": "next"}}});
        edit("apps", "v1", "Deployment", json!({"spec": {"template": template}})).await;
        until("routed", &|| gate()["status"]["phase"] == "Progressing").await;
        assert_ne!(routes()["spec"], original);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let writes = cluster.writes();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(cluster.writes(), writes, "idle costs nothing");

        edit(GROUP, "v1beta1", "Rollout", json!({"spec": {"disabled": true}})).await;
        until("restored", &|| gate()["status"]["phase"] == "Healthy").await;
        assert_eq!(routes()["spec"], original);
        stop.cancel();
    }
}

/// A script of the ConfigMap reads what the gateway says of a VirtualService.
#[test]
fn routes_that_a_gateway_refuses_are_put_back() {
    let mut stage = Stage::new(Some(routing("gate", headers())));
    let before = stage.specs();
    let script = "local http = obj.spec.http\n\
                  if http[2] and http[1].match[1].headers.user.exact == 'tester' then\n\
                  return { verdict = 'refused', reason = 'no testers here' } end\n\
                  return { verdict = 'accepted' }";
    stage.world.create(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": keys::SCRIPT_CONFIG_MAP, "namespace": settings().script_namespace},
        "data": {"lua.traffic.accepted.VirtualService.networking.istio.io": script}}));
    stage.release("a");
    let (phase, message, _) = stage.routing();
    assert_eq!(phase, "Initial");
    assert!(
        message.starts_with("VirtualService demo/nginx-vs: no testers here. The routes are as before;"),
        "{message}"
    );
    assert_eq!(stage.specs(), before);
    assert!(stage.status("a").message.contains("no testers here"), "{}", stage.status("a").message);

    stage.world.edit("TrafficRouting", "gate", |r| {
        r["spec"]["strategy"]["matches"][0]["headers"][0]["value"] = json!("anna");
    });
    stage.rest();
    assert_eq!(stage.routing().0, "Progressing");
    assert!(stage.is_routed());
    stage.approve("a");
    assert_eq!(stage.specs(), before);
}

/// A stage with a shared TrafficRouting of a kind whose script is in the ConfigMap of a namespace.
fn scripted(config_map_in: &str, namespace_scripts: bool) -> Stage {
    let mut gate = routing("gate", json!({"weight": 20}));
    gate["spec"]["objectRef"][0]["customNetworkRefs"] =
        json!([{"apiVersion": "example.com/v1", "kind": "Way", "name": "way"}]);
    let mut stage = Stage::new(None);
    stage.settings.namespace_scripts = namespace_scripts;
    stage.world.create(json!({"apiVersion": "example.com/v1", "kind": "Way", "metadata": {"name": "way"},
        "spec": {"service": "nginx-service", "canary": 0}}));
    stage.world.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": keys::SCRIPT_CONFIG_MAP, "namespace": config_map_in}, "data": {}}));
    stage.text("obj.data.spec.canary = tonumber(obj.canaryWeight)\nreturn obj.data\n");
    stage.world.create(gate);
    stage.rest();
    stage
}

impl Stage {
    fn text(&mut self, text: &str) {
        self.world.edit("ConfigMap", keys::SCRIPT_CONFIG_MAP, |map| {
            map["data"] = json!({"lua.traffic.routing.Way.example.com": text});
        });
    }

    /// Share of the canary, and what the status says of the script: source, name, version, differences, rejected version.
    fn way(&self) -> (i64, Vec<String>) {
        let script = &self.get("TrafficRouting", "gate").unwrap()["status"]["scripts"][0];
        let texts = ["/source", "/script", "/version", "/differences", "/rejected/version"];
        let said = texts.map(|at| script.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned());
        (self.get("Way", "way").unwrap()["spec"]["canary"].as_i64().unwrap(), said.to_vec())
    }
}

#[test]
fn a_text_that_does_not_work_never_serves_while_routes_are_changed() {
    let mut stage = scripted("tidegate-system", false);
    assert_eq!(stage.way(), (0, vec![String::new(); 5]));
    stage.release("a");
    let (share, first) = stage.way();
    let name = "kruise-rollout-configuration/lua.traffic.routing.Way.example.com";
    assert_eq!((share, &first[..2]), (20, &["ConfigMap".to_owned(), name.to_owned()][..]));

    stage.events.clear();
    stage.text("error('broken')");
    stage.rest();
    let (share, said) = stage.way();
    assert_eq!((share, &said[2], said[4].is_empty()), (20, &first[2], false), "{said:?}");
    let rejected: Vec<_> = stage.events.iter().filter(|(reason, _)| *reason == "ScriptRejected").collect();
    assert!(rejected.len() == 1 && rejected[0].1.contains("broken"), "told once: {:?}", stage.events);
    // The text that serves goes on with what is asked of it.
    stage.world.edit("TrafficRouting", "gate", |r| r["spec"]["strategy"] = json!({"weight": 40}));
    stage.rest();
    assert_eq!((stage.way().0, &stage.way().1[2]), (40, &first[2]));

    stage.events.clear();
    stage.text("obj.data.spec.canary = tonumber(obj.canaryWeight) + 1\nreturn obj.data\n");
    stage.rest();
    let (share, said) = stage.way();
    assert_eq!((share, said[4].as_str()), (41, ""));
    assert!(said[2] != first[2] && said[3].contains("/spec/canary 41"), "{said:?}");
    assert!(stage.events.iter().any(|(reason, _)| *reason == "ScriptChanged"), "{:?}", stage.events);

    // What is put back needs no script; the next release begins with the text of then.
    stage.text("error('broken')");
    stage.rest();
    stage.approve("a");
    assert_eq!((stage.way().0, stage.way().1[4].as_str(), stage.routing().0.as_str()), (0, "", "Healthy"));
    assert!(stage.routing().1.contains("broken"), "it would not begin: {:?}", stage.routing());
}

/// Whoever saves a script again and again makes the process no larger.
#[test]
fn texts_that_served_once_are_forgotten() {
    let mut stage = scripted("tidegate-system", false);
    stage.release("a");
    for n in 0..300 {
        stage.text(&format!("-- {n}\nobj.data.spec.canary = tonumber(obj.canaryWeight)\nreturn obj.data\n"));
        stage.pass_routing("gate");
    }
    let (version, way) = (stage.way().1[2].clone(), stage.way().0);
    assert!(way == 20 && Memory::of(&stage.engine).text(&version).is_some(), "the last one serves");
    let (texts, bytes) = Memory::of(&stage.engine).texts();
    let (compiled, results) = stage.engine.kept();
    let limits = stage.engine.limits();
    assert!(texts <= 256 && bytes <= 8 << 20, "{texts} texts, {bytes} bytes");
    assert!(compiled <= limits.compiled && results <= limits.results, "{compiled} compiled, {results} results");
}

#[test]
fn a_namespace_brings_scripts_if_it_may() {
    let mut stage = scripted(NAMESPACE, false);
    stage.release("a");
    assert!(stage.routing().1.contains("no script for example.com/Way"), "{:?}", stage.routing());
    assert_eq!(stage.way().0, 0);

    let mut stage = scripted(NAMESPACE, true);
    stage.release("a");
    let (share, said) = stage.way();
    let name = "demo/kruise-rollout-configuration/lua.traffic.routing.Way.example.com";
    assert_eq!((share, &said[..2]), (20, &["NamespaceConfigMap".to_owned(), name.to_owned()][..]));
    // The administrator's comes first.
    stage.world.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": keys::SCRIPT_CONFIG_MAP, "namespace": "tidegate-system"}, "data": {
        "lua.traffic.routing.Way.example.com": "obj.data.spec.canary = 7\nreturn obj.data\n"}}));
    stage.rest();
    let (share, said) = stage.way();
    assert_eq!((share, said[0].as_str()), (7, "ConfigMap"));
}
