//! Maps as they are read from a stranger's JSON: with known keys, and none of them twice.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::statistics::{Cause, Phase};

/// A map from causes or phases, of which no key is there twice.
///
/// # Errors
/// Those of the deserializer, and a key that is there twice.
pub fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: serde::Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Visitor<V>(std::marker::PhantomData<V>);
    impl<'de, V: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut entries: A,
        ) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = entries.next_entry::<String, V>()? {
                let known = Cause::ALL.map(Cause::name).into_iter();
                let mut known = known.chain(Phase::ALL.map(Phase::name));
                if !known.any(|name| name == key) {
                    let key: String = key.chars().take(60).map(harmless).collect();
                    return Err(serde::de::Error::custom(format!("unknown key `{key}`")));
                }
                if map.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!(
                        "the key `{key}` is there twice"
                    )));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Visitor(std::marker::PhantomData))
}

/// The character, or another where it would do something to a terminal.
#[must_use]
pub fn harmless(character: char) -> char {
    if character.is_control() { '\u{fffd}' } else { character }
}
