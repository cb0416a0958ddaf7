//! Counts and percentages of pods.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a percentage that is no whole number of pods is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Towards more pods.
    Up,
    /// Towards fewer pods.
    Down,
}

/// Reads `"20%"`; `None` when the text is no whole percentage.
pub fn percent(text: &str) -> Option<i32> {
    text.strip_suffix('%')?.trim().parse().ok().filter(|p| *p >= 0)
}

/// The number of pods that a count or percentage means for a total; `None` when the text is no percentage.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match value {
        IntOrString::Int(count) => Some(*count),
        IntOrString::String(text) => {
            let product = i64::from(percent(text)?) * i64::from(total.max(0));
            let pods = match round {
                Round::Up => (product + 99) / 100,
                Round::Down => product / 100,
            };
            i32::try_from(pods).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_counts_and_percentages() {
        for (value, total, up, down) in [
            ("20%", 5, 1, 1),
            ("20%", 6, 2, 1),
            ("99%", 101, 100, 99),
            ("100%", 7, 7, 7),
            ("0%", 7, 0, 0),
            ("1%", 1, 1, 0),
            ("50%", 0, 0, 0),
        ] {
            let value = IntOrString::String(value.to_owned());
            assert_eq!(scaled(&value, total, Round::Up), Some(up), "{value:?} of {total}");
            assert_eq!(scaled(&value, total, Round::Down), Some(down), "{value:?} of {total}");
        }
        assert_eq!(scaled(&IntOrString::Int(3), 10, Round::Up), Some(3));
        for bad in ["20", "-1%", "%", "1.5%", ""] {
            assert_eq!(scaled(&IntOrString::String(bad.to_owned()), 10, Round::Up), None, "{bad:?}");
        }
    }
}
