//! What one step asks of the gateways.

use crate::api::v1alpha1::TrafficRoutingStrategy;
use crate::api::v1beta1::{HttpRouteMatch, RequestHeaderModifier, Step};

/// What one step asks of the gateways. Without a weight and without matches it asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// The canary's share of requests in percent, 0 to 100.
    pub weight: Option<u32>,
    /// Which requests go to the canary; entries are alternatives. They win over `weight`.
    pub matches: Vec<HttpRouteMatch>,
    /// How headers of requests to the canary are rewritten.
    pub request_header_modifier: Option<RequestHeaderModifier>,
}

/// Why a step's share of traffic is not a percentage. Names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// `traffic` is not `N%` with N from 0 to 100.
    #[error("traffic: {0:?} is not a percentage from \"0%\" to \"100%\"")]
    Traffic(String),
    /// `weight` is not from 0 to 100.
    #[error("weight: {0} is not from 0 to 100")]
    Weight(i64),
    /// `traffic` and `weight` are two spellings of one field and disagree.
    #[error("traffic ({traffic:?}) and weight ({weight}) disagree: keep one of them")]
    Both {
        /// The text of `traffic`.
        traffic: String,
        /// The number of `weight`.
        weight: i32,
    },
}

impl Strategy {
    /// Reads the traffic part of a step in either spelling: `traffic: "20%"` or `weight: 20`.
    ///
    /// # Errors
    /// When the share is not a percentage, or both spellings are present and differ.
    pub fn from_step(step: &Step) -> Result<Self, StrategyError> {
        let traffic = step.traffic.as_deref().map(percent).transpose()?;
        let weight = step.weight.map(in_range).transpose()?;
        if let (Some(text), Some(t), Some(w)) = (&step.traffic, traffic, step.weight)
            && weight != Some(t)
        {
            return Err(StrategyError::Both { traffic: text.clone(), weight: w });
        }
        Ok(Strategy {
            weight: traffic.or(weight),
            matches: step.matches.clone(),
            request_header_modifier: step.request_header_modifier.clone(),
        })
    }

    /// Reads the strategy of a TrafficRouting.
    ///
    /// # Errors
    /// When the weight is not from 0 to 100.
    pub fn from_traffic_routing(strategy: &TrafficRoutingStrategy) -> Result<Self, StrategyError> {
        Ok(Strategy {
            weight: strategy.weight.map(in_range).transpose()?,
            matches: strategy.matches.clone(),
            request_header_modifier: strategy.request_header_modifier.clone(),
        })
    }

    /// True when the step sends requests to the canary.
    pub fn asks(&self) -> bool {
        !self.matches.is_empty() || self.weight.is_some_and(|w| w > 0)
    }

    /// True when the step asks nothing of the gateways.
    pub fn is_empty(&self) -> bool {
        self.weight.is_none() && self.matches.is_empty()
    }
}

fn in_range(weight: i32) -> Result<u32, StrategyError> {
    u32::try_from(weight).ok().filter(|w| *w <= 100).ok_or(StrategyError::Weight(weight.into()))
}

/// A fraction is rounded up, as Kubernetes scales percentages of the canary's side.
fn percent(text: &str) -> Result<u32, StrategyError> {
    let bad = || StrategyError::Traffic(text.to_owned());
    let digits = text.trim().strip_suffix('%').ok_or_else(bad)?;
    // `parse` alone would also take `1e1`, `inf` and `+5`.
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(bad());
    }
    let share: f64 = digits.parse().map_err(|_| bad())?;
    if !(0.0..=100.0).contains(&share) {
        return Err(bad());
    }
    // In range, so the cast is exact.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(share.ceil() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings() {
        for (traffic, weight, expected) in [
            (None, None, Ok(None)),
            (Some("20%"), None, Ok(Some(20))),
            (Some("0%"), None, Ok(Some(0))),
            (Some("100%"), None, Ok(Some(100))),
            (Some("12.1%"), None, Ok(Some(13))),
            (None, Some(20), Ok(Some(20))),
            (Some("20%"), Some(20), Ok(Some(20))),
            (Some("20"), None, Err(StrategyError::Traffic("20".into()))),
            (Some("101%"), None, Err(StrategyError::Traffic("101%".into()))),
            (Some("-1%"), None, Err(StrategyError::Traffic("-1%".into()))),
            (Some("1e1%"), None, Err(StrategyError::Traffic("1e1%".into()))),
            (Some("%"), None, Err(StrategyError::Traffic("%".into()))),
            (None, Some(-1), Err(StrategyError::Weight(-1))),
            (None, Some(101), Err(StrategyError::Weight(101))),
            (Some("20%"), Some(30), Err(StrategyError::Both { traffic: "20%".into(), weight: 30 })),
        ] {
            let step = Step { traffic: traffic.map(str::to_owned), weight, ..Step::default() };
            assert_eq!(Strategy::from_step(&step).map(|s| s.weight), expected, "{traffic:?} {weight:?}");
        }
    }
}
