//! The administrator's receivers, read once, and those of one Rollout.

use std::collections::BTreeMap;

use crate::{
    analysis::query::{Value, Values, fill},
    api::{
        keys,
        notifications::{Notifications, Receiver, ReceiverType},
    },
};

/// Receivers of one Rollout at most.
const MOST: usize = 8;

/// Values that a template may name.
pub const VALUES: [&str; 11] = [
    "namespace",
    "rollout",
    "workload",
    "event",
    "step",
    "steps",
    "message",
    "stable-revision",
    "canary-revision",
    "release",
    "time",
];

/// Checks the receivers of all Rollouts.
///
/// # Errors
/// The receiver, what is wrong, and what would be right.
pub fn check(read: &Notifications) -> Result<(), String> {
    let dummy: Values = VALUES.iter().map(|name| ((*name).to_owned(), Value::Text(String::new()))).collect();
    for (i, receiver) in read.receivers.iter().enumerate() {
        let name = &receiver.name;
        let is_name = !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && name != "none";
        if !is_name {
            return Err(format!("receivers[{i}].name: {name:?} is no name of letters, digits, - and _"));
        }
        if read.receivers.iter().take(i).any(|other| other.name == *name) {
            return Err(format!("receivers[{i}].name: {name:?} is there twice"));
        }
        if receiver.channel.is_some() && receiver.r#type != ReceiverType::Slack {
            return Err(format!("receivers[{i}].channel: only slack has channels"));
        }
        if let Some(url) = &receiver.url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            return Err(format!("receivers[{i}].url: {url:?} is neither https:// nor http://"));
        }
        if let Some(template) = &receiver.template {
            fill(template, &dummy).map_err(|why| format!("receivers[{i}].template: {why}"))?;
        }
    }
    Ok(())
}

/// Who is told of a Rollout with this annotation: the default ones, unless it says `none`, and those that it names,
/// perhaps with a channel of its own (`name=channel`).
pub fn receivers_of(all: &[Receiver], annotation: Option<&str>) -> Vec<Receiver> {
    let words = annotation.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    let named: BTreeMap<&str, Option<&str>> =
        words.map(|word| word.split_once('=').map_or((word, None), |(n, c)| (n.trim(), Some(c.trim())))).collect();
    let chosen = all.iter().filter(|receiver| {
        named.contains_key(receiver.name.as_str()) || (receiver.is_default && !named.contains_key("none"))
    });
    let with_channel = |receiver: &Receiver| {
        let mut receiver = receiver.clone();
        let own = named.get(receiver.name.as_str()).copied().flatten().filter(|channel| !channel.is_empty());
        if let (Some(channel), Some(_)) = (own, &receiver.channel) {
            receiver.channel = Some(channel.to_owned());
        }
        receiver
    };
    chosen.take(MOST).map(with_channel).collect()
}

/// Name of the Secret of a receiver, if it needs one.
pub fn secret_of(receiver: &Receiver) -> Option<&str> {
    let needs = receiver.url.is_none() || receiver.channel.is_some();
    receiver.secret.as_deref().or(needs.then_some(keys::NOTIFICATION_SECRET))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Receiver>, String> {
        let read: Notifications = crate::yaml::from_str(text).map_err(|e| e.to_string())?;
        check(&read).map(|()| read.receivers)
    }

    #[test]
    fn a_rollout_chooses_among_them() {
        let all = read(
            "receivers:\n- {name: releases, type: slack, channel: C1, isDefault: true}\n- {name: audit, type: cloudevents, url: 'http://broker'}\n- {name: pay, type: slack}\n",
        )
        .unwrap();
        for (annotation, wanted) in [
            (None, &["releases C1"][..]),
            (Some("audit"), &["releases C1", "audit -"]),
            (Some("none"), &[]),
            (Some("none, audit"), &["audit -"]),
            (Some("releases=C2, pay=C3, unknown"), &["releases C2", "pay -"]),
        ] {
            let found = receivers_of(&all, annotation);
            let found: Vec<String> =
                found.iter().map(|r| format!("{} {}", r.name, r.channel.as_deref().unwrap_or("-"))).collect();
            assert_eq!(found, wanted, "{annotation:?}");
        }
        assert_eq!(secret_of(&all[0]), Some("tidegate-notifications"));
        assert_eq!(secret_of(&all[1]), None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, says) in [
            ("receivers: [{name: a b, type: teams}]", "receivers[0].name"),
            ("receivers: [{name: a, type: teams}, {name: a, type: teams}]", "there twice"),
            ("receivers: [{name: a, type: teams, channel: C}]", "only slack has channels"),
            ("receivers: [{name: a, type: webhook, url: 'ftp://x'}]", "receivers[0].url"),
            ("receivers: [{name: a, type: webhook, template: '{{ who }}'}]", "is no known value"),
            ("receivers: [{name: a, type: webhook, chanel: C}]", "chanel"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
