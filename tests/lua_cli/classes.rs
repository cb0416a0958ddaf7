//! Scripts of Ingress classes.

use crate::Place;

/// A class's script as users of the original controller wrote them: its globals, and a table of annotations.
const CLASS: &str = "\
annotations = {}
if obj.annotations then annotations = obj.annotations end
annotations['gw/canary'] = 'true'
annotations['gw/weight'] = nil
annotations['gw/header'] = nil
if obj.weight ~= '-1' then annotations['gw/weight'] = obj.weight end
if obj.matches then
  for _, match in ipairs(obj.matches) do
    local header = match.headers[1]
    annotations['gw/header'] = header.name .. '=' .. header.value .. '@' .. obj.canaryService
  end
end
return annotations
";

const INGRESS: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {gw/timeout: 3s, cert-manager.io/issuer: x}
spec:
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]
";

const INGRESS_ROLLOUT: &str = "\
apiVersion: rollouts.kruise.io/v1beta1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  strategy:
    canary:
      steps:
      - {traffic: 20%}
      - {replicas: 1, matches: [{headers: [{name: a, value: b}]}]}
      trafficRoutings: [{service: web, ingress: {classType: mine, name: web}}]
";

fn ingress_case(expected: &str) -> String {
    let indented = |text: &str| text.lines().map(|l| format!("  {l}\n")).collect::<String>();
    format!("rollout:\n{}original:\n{}expected:\n{expected}", indented(INGRESS_ROLLOUT), indented(INGRESS))
}

#[test]
fn a_class_script_is_tested_by_the_canary_ingress_that_it_makes() {
    let annotations = "\
- {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {annotations: {gw/canary: 'true', gw/weight: '20', gw/timeout: 3s}}}
- {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {annotations: {gw/canary: 'true', gw/header: a=b@web-canary, gw/timeout: 3s}}}
";
    let place = Place::new(&[("lua-scripts/ingress/mine.lua", CLASS), ("rollout.yaml", INGRESS_ROLLOUT)]);
    place.write("testcases/ingress/mine/annotations.yaml", &ingress_case(annotations));
    // With a spec, the whole object is compared.
    let backend = |service: &str| {
        annotations.replace(
            "kind: Ingress,",
            &format!(
                "kind: Ingress, spec: {{rules: [{{http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, \
                 port: {{name: http}}}}}}}}]}}}}]}},"
            ),
        )
    };
    place.write("testcases/ingress/mine/whole.yaml", &ingress_case(&backend("web-canary")));
    let (code, out, err) = place.run(&["test"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("ok    testcases/ingress/mine/annotations.yaml (2 steps)\n"), "{out}");

    place.write("testcases/ingress/mine/whole.yaml", &ingress_case(&backend("web")));
    let (code, out, _) = place.run(&["test", "--filter", "whole"]);
    assert_eq!(code, 1);
    assert!(out.contains("-            name: web\n") && out.contains("+            name: web-canary\n"), "{out}");

    place.write("ingress.yaml", INGRESS);
    let (code, out, err) = place.run(&["run", "--object", "ingress.yaml", "--rollout", "rollout.yaml", "--step", "2"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("gw/header: a=b@web-canary\n") && out.contains("name: web-canary\n"), "{out}");
    let flags = ["--class", "mine", "--weight", "5", "--stable", "web", "--canary", "web-canary"];
    let (code, out, _) = place.run(&[&["run", "--object", "ingress.yaml"][..], &flags].concat());
    assert!(code == 0 && out.contains("gw/weight: \"5\"\n"), "{out}");

    let (code, out, _) = place.run(&[
        "run",
        "--object",
        "ingress.yaml",
        "--class",
        "none",
        "--weight",
        "5",
        "--stable",
        "a",
        "--canary",
        "b",
    ]);
    assert_eq!((code, out.as_str()), (2, ""));
}
