//! Validations of the API that a type cannot say: bounds, list keys, and CEL rules, by the path of the field.
//!
//! Rules look at `spec` only, and the ones at the root compare with the old object: an object that has become invalid
//! can still lose its finalizer, because the API server does not judge again what an update leaves as it was.
//!
//! The API server refuses a definition whose rules might cost too much, by an estimate from `maxItems` and `maxLength`.
//! For an int-or-string servers before 1.35 assume the longest possible text whatever `maxLength` says, so rules read
//! such a field one character at a time.

use serde_json::{Value, json};

use super::crd::{Error, at, set, unset};

/// A percentage without leading zeros, from 0 % and from 1 %.
const PERCENT: &str = "^(100|[1-9]?[0-9])%$";
const PERCENT_NOT_ZERO: &str = "^(100|[1-9][0-9]?)%$";

/// A number for the size of step `s` that compares with others of its kind: percentages are positive, counts negative,
/// what cannot be read is 0.
const SIZE: &str = "has(s.replicas) ? (type(s.replicas) == int ? -int(s.replicas) : \
    size(s.replicas) == 2 ? '0123456789'.indexOf(s.replicas.charAt(0)) : \
    size(s.replicas) == 3 ? '0123456789'.indexOf(s.replicas.charAt(0)) * 10 + '0123456789'.indexOf(s.replicas.charAt(1)) : 100) : \
    has(s.weight) ? s.weight : \
    !has(s.traffic) ? 0 : \
    size(s.traffic) == 2 ? '0123456789'.indexOf(s.traffic.charAt(0)) : \
    size(s.traffic) == 3 ? '0123456789'.indexOf(s.traffic.charAt(0)) * 10 + '0123456789'.indexOf(s.traffic.charAt(1)) : 100";

/// Adds a CEL rule to the field at `path`.
fn rule(schema: &mut Value, path: &str, rule: &str, message: &str) -> Result<(), Error> {
    let field = at(schema, path)?;
    let mut rules = field.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default();
    rules.push(json!({"rule": rule, "message": message}));
    set(field, json!({"x-kubernetes-validations": rules}));
    Ok(())
}

/// Adds keywords to the field at `path`.
fn keywords(schema: &mut Value, path: &str, what: Value) -> Result<(), Error> {
    set(at(schema, path)?, what);
    Ok(())
}

/// What holds for both versions of `Rollout`.
pub(super) fn rollout(schema: &mut Value) -> Result<(), Error> {
    rule(
        schema,
        "spec",
        "has(self.workloadRef) != (has(self.objectRef) && has(self.objectRef.workloadRef))",
        "name the workload exactly once: in spec.workloadRef, or in v1alpha1's spelling spec.objectRef.workloadRef",
    )?;
    rule(
        schema,
        "spec",
        "!has(self.strategy.blueGreen) || self.?workloadRef.?kind.or(self.?objectRef.?workloadRef.?kind).orValue('Deployment') in ['Deployment', 'CloneSet']",
        "blueGreen is for a Deployment or a CloneSet: use canary for this kind of workload",
    )?;
    rule(
        schema,
        "spec.strategy",
        "has(self.canary) != has(self.blueGreen)",
        "choose exactly one of canary and blueGreen",
    )?;
    let has_deadline = ["canary", "blueGreen"].map(|style| {
        format!("has(self.{style}) && has(self.{style}.steps) && self.{style}.steps.exists(s, has(s.stepDeadlineSeconds) && s.stepDeadlineSeconds > 0)")
    });
    rule(
        schema,
        "spec.strategy",
        &format!(
            "!has(self.onStepFailure) || self.onStepFailure != 'Rollback' || (has(self.stepDeadlineSeconds) && self.stepDeadlineSeconds > 0) || ({}) || ({})",
            has_deadline[0], has_deadline[1]
        ),
        "onStepFailure: Rollback needs a deadline: set stepDeadlineSeconds, here or at a step",
    )?;
    analysis(schema, "spec.strategy.analysis")?;
    by_name(schema, "spec.strategy.hooks")?;
    keywords(schema, "spec.strategy.hooks[].when", json!({"x-kubernetes-list-type": "set"}))?;
    for field in ["timeout", "interval", "unreachableTimeout"] {
        keywords(schema, &format!("spec.strategy.hooks[].{field}"), json!({"pattern": DURATION}))?;
    }
    for path in ["spec.workloadRef", "spec.objectRef.workloadRef"] {
        reference(schema, path)?;
    }
    for style in ["canary", "blueGreen"] {
        let style = format!("spec.strategy.{style}");
        rule(schema, &style, "has(self.steps) && size(self.steps) > 0", "give at least one step")?;
        keywords(schema, &format!("{style}.failureThreshold"), json!({"pattern": PERCENT, "minimum": 0}))?;
        steps(schema, &format!("{style}.steps"))?;
        // The contract knows one entry; the list is there for what may come.
        keywords(schema, &format!("{style}.trafficRoutings"), json!({"maxItems": 1}))?;
        traffic_routing_ref(schema, &format!("{style}.trafficRoutings[]"))?;
        rule(
            schema,
            &style,
            "!has(self.disableGenerateCanaryService) || !self.disableGenerateCanaryService || !has(self.trafficRoutings) || self.trafficRoutings.all(t, !has(t.createCanaryService) || !t.createCanaryService)",
            "createCanaryService: true contradicts disableGenerateCanaryService: true: keep one of the two",
        )?;
    }
    rule(
        schema,
        "spec.strategy.canary",
        "!has(self.trafficRoutings) || size(self.trafficRoutings) == 0 || !has(self.steps) || self.steps.all(i, s, i == 0 || !has(s.weight) || !has(self.steps[i - 1].weight) || s.weight >= self.steps[i - 1].weight)",
        "the weight of a step must not be below the weight of the step before: order the steps from little traffic to much",
    )?;
    rule(
        schema,
        "spec.strategy.canary.steps[]",
        "has(self.replicas) || has(self.weight) || has(self.traffic)",
        "a step needs replicas (a number of pods or a percentage such as 20%), weight or traffic",
    )?;
    rule(
        schema,
        "spec.strategy.canary.steps[]",
        "(!has(self.traffic) || self.traffic != '0%') && (has(self.replicas) || !has(self.weight) || self.weight > 0)",
        "the traffic of a canary step is 1% to 100%: leave it out to let each ready pod have its share",
    )?;
    rule(
        schema,
        "spec.strategy.blueGreen.steps[]",
        "has(self.replicas)",
        "a blueGreen step needs replicas: a number of pods, or a percentage such as 100%",
    )?;
    keywords(
        schema,
        "status.conditions",
        json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    )?;
    for (path, more) in [
        ("status.canaryStatus", ["canaryRevision", "canaryReplicas", "canaryReadyReplicas"]),
        ("status.blueGreenStatus", ["updatedRevision", "updatedReplicas", "updatedReadyReplicas"]),
    ] {
        let mut required = vec!["podTemplateHash", "nextStepIndex", "finalisingStep", "currentStepState"];
        required.extend(more);
        status_fields(schema, path, &required)?;
    }
    status_fields(schema, "status", &[])?;
    let both = [same("spec.workloadRef"), same("spec.objectRef")].join(" && ");
    unchanged_while_releasing(schema, &both, "the workload")?;
    let routings = ["canary", "blueGreen"].map(|style| {
        let (now, field) = (format!("spec.strategy.{style}"), format!("spec.strategy.{style}.trafficRoutings"));
        format!("(!has(self.{now}) || !has(oldSelf.{now}) || {})", same(&field))
    });
    unchanged_while_releasing(schema, &routings.join(" && "), "trafficRoutings")?;
    unchanged_while_releasing(
        schema,
        &format!(
            "has(self.spec.strategy.blueGreen) == has(oldSelf.spec.strategy.blueGreen) && (!has(self.spec.strategy.canary) || !has(oldSelf.spec.strategy.canary) || {})",
            same("spec.strategy.canary.enableExtraWorkloadForCanary")
        ),
        "the style (canary, blueGreen, enableExtraWorkloadForCanary)",
    )
}

/// CEL for: the field is as it was. (Comparing two optionals would be shorter; the API server takes its cost for unbounded.)
fn same(field: &str) -> String {
    format!("(has(self.{field}) ? has(oldSelf.{field}) && self.{field} == oldSelf.{field} : !has(oldSelf.{field}))")
}

/// What holds for v1alpha1: its clients do not know the copies at the top of the status.
pub(super) fn rollout_v1alpha1(schema: &mut Value) -> Result<(), Error> {
    unset(at(schema, "status")?, "required");
    Ok(())
}

/// What holds for v1beta1.
pub(super) fn rollout_v1beta1(schema: &mut Value) -> Result<(), Error> {
    status_fields(schema, "status", &["currentStepIndex", "currentStepState"])?;
    unchanged_while_releasing(
        schema,
        "self.spec.strategy.?canary.?steps.orValue([]).size() == oldSelf.spec.strategy.?canary.?steps.orValue([]).size() && self.spec.strategy.?blueGreen.?steps.orValue([]).size() == oldSelf.spec.strategy.?blueGreen.?steps.orValue([]).size()",
        "the number of steps",
    )
}

/// What holds for `TrafficRouting`.
pub(super) fn traffic_routing(schema: &mut Value) -> Result<(), Error> {
    keywords(schema, "spec.objectRef", json!({"minItems": 1, "maxItems": 16}))?;
    traffic_routing_ref(schema, "spec.objectRef[]")?;
    rule(
        schema,
        "spec.objectRef[]",
        "!has(self.proof)",
        "a TrafficRouting that is shared has no steps to prove: give the proof to a Rollout's own trafficRoutings",
    )?;
    keywords(schema, "spec.strategy.matches", json!({"maxItems": 16}))?;
    route_match(schema, "spec.strategy.matches[]")?;
    header_modifier(schema, "spec.strategy.requestHeaderModifier")
}

fn unchanged_while_releasing(schema: &mut Value, same: &str, what: &str) -> Result<(), Error> {
    rule(
        schema,
        "",
        &format!("!(oldSelf.?status.?phase.orValue('') in ['Progressing', 'Terminating']) || ({same})"),
        &format!(
            "{what} cannot change while a release is going on: wait until it has ended, or roll the workload back first"
        ),
    )
}

/// A writer always says these, zeros and empty strings included; a default would hide that it did not.
fn status_fields(schema: &mut Value, path: &str, required: &[&str]) -> Result<(), Error> {
    let status = at(schema, path)?;
    if let Some(properties) = status.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|field| unset(field, "default"));
    }
    unset(status, "required");
    if !required.is_empty() {
        for name in required {
            at(status, name)?;
        }
        set(status, json!({"required": required}));
    }
    Ok(())
}

fn steps(schema: &mut Value, path: &str) -> Result<(), Error> {
    rule(
        schema,
        path,
        &format!(
            "[self.map(s, {SIZE})].all(sizes, sizes.all(i, size, i == 0 || (size > 0 && sizes[i - 1] > 0 ? size >= sizes[i - 1] : size >= 0 || sizes[i - 1] >= 0 || size <= sizes[i - 1])))"
        ),
        "a step must not have fewer pods than the step before, as far as both are counts or both percentages: order the steps from few pods to many",
    )?;
    let step = format!("{path}[]");
    rule(
        schema,
        &step,
        "!has(self.weight) || !has(self.traffic)",
        "weight and traffic are two spellings of the same share: keep one",
    )?;
    keywords(schema, &format!("{step}.replicas"), json!({"pattern": PERCENT_NOT_ZERO, "minimum": 1}))?;
    by_name(schema, &format!("{step}.gates"))?;
    keywords(schema, &format!("{step}.gates[].job.timeout"), json!({"pattern": DURATION}))?;
    keywords(schema, &format!("{step}.pause.duration"), json!({"minimum": 0}))?;
    keywords(schema, &format!("{step}.traffic"), json!({"maxLength": 8}))?;
    rule(
        schema,
        &format!("{step}.traffic"),
        &format!("self.matches('{PERCENT}')"),
        "traffic is a whole percentage from 0% to 100%, such as 20%",
    )?;
    let of_step = format!("{step}.analysis");
    rule(
        schema,
        &of_step,
        "!has(self.background) || !self.background",
        "a step's analysis is over when the step is: set background on spec.strategy.analysis",
    )?;
    analysis(schema, &of_step)?;
    route_match(schema, &format!("{step}.matches[]"))?;
    header_modifier(schema, &format!("{step}.requestHeaderModifier"))
}

/// Hours, minutes and seconds, as Prometheus and Go write them.
const DURATION: &str = "^([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$";

fn analysis(schema: &mut Value, path: &str) -> Result<(), Error> {
    let metrics = format!("{path}.metrics");
    by_name(schema, &metrics)?;
    let metric = format!("{metrics}[]");
    for (expression, message) in [
        (
            "has(self.compare) || has(self.query) != has(self.template)",
            "a metric needs a query, or a template that has one: give exactly one of the two",
        ),
        (
            "has(self.compare) || has(self.condition) || has(self.min) || has(self.max)",
            "a metric needs bounds: give min, max or both, a condition, or compare",
        ),
        (
            "!has(self.condition) || !(has(self.min) || has(self.max))",
            "a condition stands instead of min and max: keep one of the two",
        ),
        (
            "!has(self.compare) || !(has(self.query) || has(self.min) || has(self.max) || has(self.condition) || has(self.count) || has(self.failureLimit) || has(self.minSamples) || has(self.samplesQuery))",
            "compare has questions and limits of its own: query, min, max, condition, count, failureLimit, minSamples and samplesQuery have no meaning beside it",
        ),
        (
            "!has(self.compare) || has(self.template) || has(self.compare.canary) && has(self.compare.stable)",
            "compare.canary and compare.stable: say what is asked about each version, or name a template that compares",
        ),
        (
            "!has(self.compare) || has(self.template) && !has(self.provider) || has(self.provider) && has(self.provider.prometheus)",
            "compare needs a provider that counts requests: prometheus",
        ),
        (
            "!has(self.samplesQuery) || has(self.minSamples)",
            "samplesQuery counts the samples for minSamples: give that too",
        ),
        (
            "!has(self.minSamples) || has(self.samplesQuery) || has(self.template)",
            "minSamples needs a samplesQuery that counts the samples, or a template that has one",
        ),
        (
            "!has(self.minSamples) || !has(self.provider) || !(has(self.provider.pods) || has(self.provider.job))",
            "minSamples has no meaning for pods and jobs, which count no samples",
        ),
        ("!has(self.min) || !has(self.max) || self.min <= self.max", "min must not be above max"),
    ] {
        rule(schema, &metric, expression, message)?;
    }
    for field in ["interval", "delay", "noDataTimeout"] {
        keywords(schema, &format!("{metric}.{field}"), json!({"pattern": DURATION}))?;
    }
    for chance in ["falseAlarm", "missed"] {
        keywords(schema, &format!("{metric}.compare.{chance}"), json!({"minimum": 0, "maximum": 0.5}))?;
    }
    for difference in ["effect", "tolerance"] {
        keywords(schema, &format!("{metric}.compare.{difference}"), json!({"minimum": 0}))?;
    }
    keywords(schema, &format!("{metric}.template.arguments"), json!({"maxProperties": 16}))?;
    keywords(
        schema,
        &format!("{metric}.template.arguments"),
        json!({"additionalProperties": {"type": "string", "maxLength": 1024}}),
    )?;
    provider(schema, &format!("{metric}.provider"))
}

fn provider(schema: &mut Value, path: &str) -> Result<(), Error> {
    rule(
        schema,
        path,
        "[has(self.prometheus), has(self.datadog), has(self.web), has(self.job), has(self.pods)].filter(is_there, is_there).size() == 1",
        "name exactly one provider: prometheus, datadog, web, job or pods",
    )?;
    for server in ["prometheus", "datadog", "web"] {
        keywords(schema, &format!("{path}.{server}.address"), json!({"pattern": "^https?://[^ ]+$"}))?;
    }
    keywords(schema, &format!("{path}.job.timeout"), json!({"pattern": DURATION}))?;
    keywords(schema, &format!("{path}.web.path"), json!({"pattern": "^/[^#]*$"}))
}

/// What holds for `MetricTemplate`.
pub(super) fn metric_template(schema: &mut Value) -> Result<(), Error> {
    rule(
        schema,
        "spec",
        "(has(self.query) && self.query != '') != has(self.compare)",
        "give the template a query, or questions to compare: exactly one of the two",
    )?;
    rule(
        schema,
        "spec",
        "!has(self.samplesQuery) || !has(self.compare)",
        "samplesQuery counts the samples of a query: compare has least",
    )?;
    by_name(schema, "spec.arguments")?;
    provider(schema, "spec.provider")
}

/// The rules of the Gateway API for `HTTPRouteMatch`.
fn route_match(schema: &mut Value, path: &str) -> Result<(), Error> {
    for list in ["headers", "queryParams"] {
        by_name(schema, &format!("{path}.{list}"))?;
    }
    let path = format!("{path}.path");
    rule(
        schema,
        &path,
        "self.type == 'RegularExpression' || self.value.startsWith('/')",
        "the value of an Exact or PathPrefix path starts with '/'",
    )?;
    rule(
        schema,
        &path,
        "self.type == 'RegularExpression' || !(self.value.contains('//') || self.value.contains('/./') || self.value.contains('/../') || self.value.endsWith('/.') || self.value.endsWith('/..') || self.value.contains('%2f') || self.value.contains('%2F'))",
        "the value of an Exact or PathPrefix path is normalised: without '//', '.' and '..' as a part, and an escaped '/'",
    )?;
    rule(
        schema,
        &path,
        r"self.type == 'RegularExpression' || self.value.matches(r'''^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$''')",
        "the value of an Exact or PathPrefix path has only the characters that RFC 3986 allows in a path, without query and fragment: escape others as %XX",
    )
}

fn header_modifier(schema: &mut Value, path: &str) -> Result<(), Error> {
    by_name(schema, &format!("{path}.set"))?;
    by_name(schema, &format!("{path}.add"))?;
    keywords(schema, &format!("{path}.remove"), json!({"x-kubernetes-list-type": "set"}))?;
    keywords(schema, &format!("{path}.remove[]"), json!({"minLength": 1, "maxLength": 256}))
}

fn by_name(schema: &mut Value, path: &str) -> Result<(), Error> {
    keywords(schema, path, json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}))
}

fn reference(schema: &mut Value, path: &str) -> Result<(), Error> {
    for field in ["apiVersion", "kind", "name"] {
        keywords(schema, &format!("{path}.{field}"), json!({"minLength": 1, "maxLength": 317}))?;
    }
    Ok(())
}

fn traffic_routing_ref(schema: &mut Value, path: &str) -> Result<(), Error> {
    keywords(schema, &format!("{path}.service"), json!({"minLength": 1, "maxLength": 253}))?;
    keywords(schema, &format!("{path}.ingress.name"), json!({"minLength": 1, "maxLength": 253}))?;
    keywords(schema, &format!("{path}.ingress.classType"), json!({"maxLength": 253}))?;
    keywords(schema, &format!("{path}.gateway.httpRouteName"), json!({"maxLength": 253}))?;
    rule(
        schema,
        &format!("{path}.gateway"),
        "has(self.httpRouteName) && self.httpRouteName != ''",
        "name the HTTPRoute in httpRouteName",
    )?;
    keywords(schema, &format!("{path}.proof.expectStatus[]"), json!({"minimum": 200, "maximum": 599}))?;
    for list in ["customNetworkRefs", "networkRefs"] {
        keywords(schema, &format!("{path}.{list}"), json!({"maxItems": 64}))?;
        reference(schema, &format!("{path}.{list}[]"))?;
    }
    rule(
        schema,
        path,
        "has(self.ingress) || has(self.gateway) || (has(self.customNetworkRefs) && size(self.customNetworkRefs) > 0) || (has(self.networkRefs) && size(self.networkRefs) > 0)",
        "name what routes to the service: ingress, gateway, networkRefs or customNetworkRefs",
    )
}
