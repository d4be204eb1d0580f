//! How much was carried, and what HTTP said of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the finished requests of a window carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of the replies that became whole in the window.
    pub received_bytes: u64,
    /// Bytes of their requests.
    pub sent_bytes: u64,
    /// How many of the replies that were counted had each status, where they are HTTP's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statuses: BTreeMap<u16, u64>,
    /// How many connections went to each address, where they were spread over several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<String, u64>,
}

impl Traffic {
    /// Adds what another run carried.
    pub fn add(&mut self, other: &Self) {
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (address, count) in &other.connections {
            *self.connections.entry(address.clone()).or_default() += count;
        }
    }

    /// How many replies had a status of 400 or above.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.statuses.range(400..).map(|(_, count)| count).sum()
    }
}
