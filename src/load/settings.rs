//! In what two runs were asked for different things.

use serde::Serialize;
use serde_json::Value;

use super::outcome::Asked;

/// A setting that two runs do not share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name, as in the JSON.
    pub name: String,
    /// In the first run.
    pub before: String,
    /// In the second.
    pub after: String,
}

/// Every setting in which `one` and `other` differ, but for those of `shares`.
#[must_use]
pub fn differences(one: &Asked, other: &Asked, shares: &[&str]) -> Vec<Difference> {
    let fields = |asked| match serde_json::to_value(asked) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (one, other) = (fields(one), fields(other));
    let differ = one.iter().filter(|(name, value)| {
        !shares.contains(&name.as_str()) && other.get(*name) != Some(value)
    });
    let words = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    differ
        .map(|(name, value)| Difference {
            name: name.clone(),
            before: words(Some(value)),
            after: words(other.get(name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome_of;
    use super::*;

    #[test]
    fn what_differs_is_named_with_both_values() {
        let one = outcome_of(&[1]).asked;
        let other = Asked { connections: 20, rate_per_second: Some(9.5), ..one.clone() };
        assert_eq!(differences(&one, &one, &[]), []);
        let found = differences(&one, &other, &["connections"]);
        let rate = Difference {
            name: "rate_per_second".to_owned(),
            before: "none".to_owned(),
            after: "9.5".to_owned(),
        };
        assert_eq!(found, [rate]);
    }
}
