//! What a name that somebody wrote may be in full: the search list of resolv.conf(5).

use std::collections::VecDeque;

use hickory_proto::rr::Name;

use super::{Failure, Settings};

/// One of the names that are asked for in turn.
pub(super) struct FullName {
    pub(super) name: Name,
    /// Whether it is what was written, with no domain behind it.
    pub(super) is_as_given: bool,
}

/// What `host` may be in full, in the order in which it is asked for: a name with many dots as it
/// stands and then in each domain of the search list, one with few the other way round (`ndots`).
/// One that ends in a dot is whole; never none.
pub(super) fn full_names(host: &str, settings: &Settings) -> Result<VecDeque<FullName>, Failure> {
    let relative = Name::from_ascii(host).map_err(|_| Failure::NotAName)?;
    if relative.is_root() {
        return Err(Failure::NotAName);
    }
    if relative.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"invalid")) {
        // It never exists (RFC 6761, 6.4).
        return Err(Failure::NoSuchName);
    }
    let mut absolute = relative.clone();
    absolute.set_fqdn(true);
    let as_given = FullName { name: absolute.clone(), is_as_given: true };
    if relative.is_fqdn() {
        return Ok([as_given].into());
    }
    let in_domain = |domain: &String| {
        let domain = Name::from_ascii(domain).ok()?;
        let name = relative.clone().append_domain(&domain).ok()?;
        (name != absolute).then_some(FullName { name, is_as_given: false })
    };
    let mut names: VecDeque<_> = settings.search.iter().filter_map(in_domain).collect();
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    if dots >= settings.dots {
        names.push_front(as_given);
    } else if dots > 0 || names.is_empty() || !settings.spares_roots {
        names.push_back(as_given);
    }
    Ok(names)
}
