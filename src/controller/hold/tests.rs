use serde_json::json;

use super::*;

const SETTLE: Duration = Duration::from_secs(600);

#[test]
fn the_old_one_goes_when_the_new_one_has_acted_for_long_enough() {
    use Step::*;
    let time = |seconds| Some(Duration::from_secs(seconds));
    // Written as: policies are served, there, all there; webhooks are there, trusted.
    let seen = |word: &str| Seen {
        is_served: word.contains('s'),
        has_policies: word.contains('p') || word.contains('a'),
        has_all_policies: word.contains('a'),
        has_webhooks: word.contains('w') || word.contains('t'),
        is_trusted: word.contains('t'),
    };
    let none = Known::default();
    let acts = |seconds| Known { acts: time(seconds), ..none };
    let fails = |seconds| Known { fails: time(seconds), ..none };
    let trusted = |seconds| Known { trusted: time(seconds), ..none };
    let removed = Known { has_removed: true, ..acts(600) };
    for (wish, word, known, serves, expected) in [
        // An old server.
        (Wish::Auto, "t", none, true, Rest),
        (Wish::Auto, "", none, true, InstallWebhooks),
        (Wish::Auto, "", none, false, Rest),
        (Wish::Policy, "t", none, true, Rest),
        // It was upgraded.
        (Wish::Auto, "st", none, true, InstallPolicies),
        (Wish::Auto, "spt", none, true, InstallPolicies),
        (Wish::Auto, "sat", none, true, TryPolicies),
        (Wish::Auto, "sat", acts(599), true, TryPolicies),
        (Wish::Auto, "sat", acts(600), true, RemoveWebhooks),
        (Wish::Auto, "sat", fails(600), true, TryPolicies),
        (Wish::Auto, "sat", removed, true, Rest),
        // A new one.
        (Wish::Auto, "s", none, true, InstallPolicies),
        (Wish::Policy, "s", none, false, InstallPolicies),
        (Wish::Auto, "sa", none, true, TryPolicies),
        (Wish::Auto, "sa", acts(0), true, Rest),
        // It has the policies, and an administrator switched their plugin off.
        (Wish::Auto, "sa", fails(59), true, TryPolicies),
        (Wish::Auto, "sa", fails(60), true, InstallWebhooks),
        (Wish::Auto, "sa", fails(60), false, TryPolicies),
        // It was taken back to an older one.
        (Wish::Auto, "", acts(600), true, InstallWebhooks),
        // Webhooks are wanted where policies are.
        (Wish::Webhook, "sa", none, true, InstallWebhooks),
        (Wish::Webhook, "saw", none, true, Rest),
        (Wish::Webhook, "sat", none, true, Wait(SETTLE)),
        (Wish::Webhook, "sat", trusted(590), true, Wait(Duration::from_secs(10))),
        (Wish::Webhook, "spt", trusted(600), true, RemovePolicies),
        (Wish::Webhook, "st", trusted(600), true, Rest),
        (Wish::Webhook, "sa", none, false, Rest),
    ] {
        assert_eq!(next(wish, seen(word), known, SETTLE, serves), expected, "{wish:?} {word:?} {known:?} {serves}");
    }
}

#[test]
fn a_webhook_is_placed_beside_another() {
    let placed = |config: Value| {
        let mut webhook = json!({"clientConfig": {"service": {"path": "/mutate-x"}}}).as_object().unwrap().clone();
        place(&mut webhook, &json!({"clientConfig": config, "namespaceSelector": {"matchLabels": {"a": "b"}}}));
        assert_eq!(webhook["namespaceSelector"], json!({"matchLabels": {"a": "b"}}));
        webhook["clientConfig"].clone()
    };
    assert_eq!(
        placed(json!({"url": "https://10.0.0.1:9876/validate-rollouts", "caBundle": "Q0E="})),
        json!({"url": "https://10.0.0.1:9876/mutate-x", "caBundle": "Q0E="})
    );
    assert_eq!(
        placed(json!({"service": {"name": "web", "namespace": "ops", "path": "/validate-rollouts"}})),
        json!({"service": {"name": "web", "namespace": "ops", "path": "/mutate-x"}})
    );
    assert!(!is_ours(&json!({"webhooks": [{"name": "mdeployment.kb.io"}]})));
    assert!(is_ours(&json!({"webhooks": [{"matchConditions": [{"name": "held"}]}]})));
}
