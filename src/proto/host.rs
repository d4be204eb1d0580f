//! Hosts as people and programs write them, in one form each: two that are the same are equal.
//!
//! An IP address has many spellings, and whoever connects reads them all as the system's library
//! does (`inet_aton(3)`, RFC 4291 section 2.2). A rule that compared spellings would be no rule.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name, in bytes (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// The longest part of a name, in bytes.
const MAX_LABEL: usize = 63;

/// A host: an IPv6 address in brackets, an IPv4 address, or a name. The result is an address as
/// RFC 5952 writes it, without brackets, and as an IPv4 address where it stands for one; or a name in
/// lower case without its final dot.
#[must_use]
pub fn normal(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = IpAddr::V6(address.parse::<Ipv6Addr>().ok()?);
        return Some(address.to_canonical().to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Some(address) = ipv4(&name) {
        return Some(address.to_string());
    }
    is_name(&name).then_some(name)
}

/// Whether a host can have this name, which is without its final dot (RFC 1035, section 2.3.4): it
/// is not too long, and neither is a part of it, and no part is empty.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// An IPv4 address in any of the forms that `inet_aton(3)` knows: one to four numbers, decimal,
/// octal after a `0` or hexadecimal after `0x`, of which the last fills all bytes that are left.
#[must_use]
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(number);
    let mut address: u32 = 0;
    for place in 0..4 {
        let part = parts.next()??;
        let left = 8 * (4 - place);
        if parts.clone().next().is_none() {
            let fits = left == 32 || part >> left == 0;
            return fits.then(|| Ipv4Addr::from(address | part));
        }
        if part > 0xff {
            return None;
        }
        address |= part << (left - 8);
    }
    None
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_number { u32::from_str_radix(digits, radix).ok() } else { None }
}

/// A port, which is digits alone and not 0.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_address_has_one_form() {
        let cases = [
            ("[::1]", "::1"),
            ("[0:0::1]", "::1"),
            ("[0000:0:0:0:0:0:0:0001]", "::1"),
            ("[2001:DB8::A]", "2001:db8::a"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
            ("[::FFFF:7f00:1]", "127.0.0.1"),
            ("[::127.0.0.1]", "::7f00:1"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0x7f.0.0.1", "127.0.0.1"),
            ("0X7F000001", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("010.8.8.8", "8.8.8.8"),
            ("0", "0.0.0.0"),
            ("DB.Internal.", "db.internal"),
            ("256.1.1.1", "256.1.1.1"),
            ("08.1.1.1", "08.1.1.1"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("0x", "0x"),
            ("4294967296", "4294967296"),
            ("1.16777216", "1.16777216"),
        ];
        for (text, expected) in cases {
            assert_eq!(normal(text).as_deref(), Some(expected), "{text}");
        }
        let long = format!("{}.example", "x".repeat(MAX_LABEL + 1));
        for text in [
            &*long,
            "",
            ".",
            "[::1",
            "[1.2.3.4]",
            "[fe80::1%lo]",
            "::1",
            "a b",
            "[]",
            "[00001::]",
            "a..",
            "..",
            ".a",
        ] {
            assert_eq!(normal(text), None, "{text}");
        }
    }

    #[test]
    fn a_port_is_digits() {
        assert_eq!((port("80"), port("0080"), port("65535")), (Some(80), Some(80), Some(65535)));
        for text in ["", "0", "+80", "-1", " 80", "65536", "0x50"] {
            assert_eq!(port(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_ipv4_address_is_that_address(address: u32) {
            let [a, b, c, d] = address.to_be_bytes();
            let spellings = [
                format!("{a}.{b}.{c}.{d}"),
                format!("{a}.{b}.{}", address & 0xffff),
                format!("{a}.{}", address & 0xff_ffff),
                format!("{address}"),
                format!("{address:#x}"),
                format!("0{address:o}"),
                format!("{a:#x}.0{b:o}.{c}.{d:#04x}"),
                format!("[::ffff:{a}.{b}.{c}.{d}]"),
            ];
            for spelling in spellings {
                prop_assert_eq!(normal(&spelling), Some(Ipv4Addr::from(address).to_string()), "{}", spelling);
            }
        }

        #[test]
        fn every_spelling_of_an_ipv6_address_is_that_address(address: u128) {
            let address = Ipv6Addr::from(address);
            let long: Vec<_> = address.segments().iter().map(|part| format!("{part:04X}")).collect();
            let expected = IpAddr::V6(address).to_canonical().to_string();
            prop_assert_eq!(normal(&format!("[{}]", long.join(":"))), Some(expected.clone()));
            prop_assert_eq!(normal(&format!("[{address}]")), Some(expected));
        }

        #[test]
        fn what_is_normal_stays_so(text in "[0-9a-zA-Z.x]{1,12}") {
            if let Some(once) = normal(&text) {
                prop_assert_eq!(normal(&once), Some(once.clone()));
            }
        }
    }
}
