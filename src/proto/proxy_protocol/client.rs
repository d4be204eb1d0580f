//! From what is known of a client to the header that tells it to the next server.
//!
//! Invariant: a header is below two KiB whatever a client calls itself, so that a fresh socket takes
//! it in one write.

use core::net::{IpAddr, SocketAddr};
use std::fmt;
use std::str::FromStr;

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use super::{Addresses, IDENTITY_FIELD, MAKER, MAKER_FIELD};

/// Which form of header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text, with addresses alone.
    V1,
    /// Binary, with all that is known.
    V2,
}

/// A text names no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown version `{0}` of the PROXY protocol")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client<'a> {
    /// Who it is and where it connected to; `None` for a process of this machine.
    pub addresses: Option<Addresses>,
    /// The TLS that it speaks.
    pub security: Option<Security<'a>>,
    /// The name of the secret that let it in.
    pub identity: Option<&'a str>,
}

/// What is known of a client's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security<'a> {
    /// The version, as OpenSSL writes it, which is what receivers expect: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA names it.
    pub cipher: String,
    /// The application protocol that was agreed on (ALPN).
    pub alpn: Option<&'a [u8]>,
    /// The host that the client asked for (SNI).
    pub server_name: Option<&'a str>,
    /// The common names of the certificate that it showed and that was verified, where it did.
    pub certificate: Option<Vec<String>>,
}

/// The longest name that is passed on, in bytes. A host's has no more, and a common name 64
/// characters (RFC 5280); a part of a longer one would be somebody else's.
const NAME_LIMIT: usize = 255;

/// What the field of verification says where no certificate was shown: anything but 0, which is
/// "shown and verified".
const NOT_VERIFIED: u32 = 1;

impl Client<'_> {
    /// The header of `version` that tells of this client.
    ///
    /// # Panics
    /// If a field does not fit: the names of protocols and secrets must be short.
    #[must_use]
    pub fn header(&self, version: Version) -> Vec<u8> {
        let addresses = self.addresses.map(|it| {
            let (source, destination) = of_one_family(it.source, it.destination);
            ProxiedAddress::stream(source, destination)
        });
        let mut bytes = Vec::new();
        let written = match version {
            Version::V1 => ProxyHeader::with_tlvs(addresses, []).encode_v1(&mut bytes),
            Version::V2 => ProxyHeader::with_tlvs(addresses, self.fields()).encode_v2(&mut bytes),
        };
        written.expect("two addresses of one family and short fields make a header");
        bytes
    }

    fn fields(&self) -> Vec<Tlv<'_>> {
        let mut fields = Vec::new();
        if let Some(security) = &self.security {
            fields.extend(security.alpn.map(|protocol| Tlv::Alpn(protocol.into())));
            let server_name = security.server_name.filter(|name| name.len() <= NAME_LIMIT);
            fields.extend(server_name.map(|name| Tlv::Authority(name.into())));
            fields.push(Tlv::Ssl(security_field(security)));
        }
        if let Some(identity) = self.identity {
            fields.push(Tlv::Custom(IDENTITY_FIELD, identity.as_bytes().into()));
            fields.push(Tlv::Custom(MAKER_FIELD, MAKER.into()));
        }
        fields
    }
}

/// A header holds two addresses of one family, and an IPv4 client of an IPv6 socket is IPv4.
fn of_one_family(one: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let mapped = |it: SocketAddr| match it.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), it.port()),
        IpAddr::V6(_) => it,
    };
    let (one, other) = (canonical(one), canonical(other));
    if one.is_ipv4() == other.is_ipv4() { (one, other) } else { (mapped(one), mapped(other)) }
}

fn security_field(security: &Security<'_>) -> SslInfo<'static> {
    let shown = security.certificate.is_some();
    let mut field = SslInfo::new(true, shown, shown, if shown { 0 } else { NOT_VERIFIED });
    field.append_tlv(Tlv::SslVersion(security.version.into()));
    let name = security.certificate.as_ref().and_then(|names| names.first());
    if let Some(name) = name.filter(|name| name.len() <= NAME_LIMIT) {
        field.append_tlv(Tlv::SslCn(name.as_str().into()));
    }
    field.append_tlv(Tlv::SslCipher(security.cipher.as_str().into()));
    field
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::proto::proxy_protocol::read;

    use super::*;

    fn client(source: &str, destination: &str) -> Client<'static> {
        let read = |text: &str| text.parse().expect("an address");
        let addresses = Addresses { source: read(source), destination: read(destination) };
        Client { addresses: Some(addresses), ..Client::default() }
    }

    fn line(client: &Client<'_>) -> String {
        String::from_utf8(client.header(Version::V1)).expect("text")
    }

    #[test]
    fn the_first_version_is_a_line() {
        let four = client("203.0.113.7:4660", "192.0.2.1:443");
        assert_eq!(line(&four), "PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n");
        let six = client("[2001:db8::1]:80", "[2001:db8::2]:81");
        assert_eq!(line(&six), "PROXY TCP6 2001:db8::1 2001:db8::2 80 81\r\n");
        let mapped = client("203.0.113.7:4660", "[::ffff:192.0.2.1]:443");
        assert_eq!(line(&mapped), line(&four));
        let mixed = client("203.0.113.7:4660", "[2001:db8::2]:81");
        assert_eq!(line(&mixed), "PROXY TCP6 ::ffff:203.0.113.7 2001:db8::2 4660 81\r\n");
        assert_eq!(line(&Client::default()), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_second_version_tells_all_that_is_known() {
        let security = Security {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            alpn: Some(b"h2"),
            server_name: Some("example.org"),
            certificate: Some(vec!["alice".to_owned()]),
        };
        let plain = client("203.0.113.7:4660", "192.0.2.1:443");
        let client = Client { security: Some(security), identity: Some("tunnel"), ..plain.clone() };
        let expected: &[&[u8]] = &[
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x67",
            &[203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0x01, 0xbb],
            b"\x01\0\x02h2",
            b"\x02\0\x0bexample.org",
            b"\x20\0\x30\x07\0\0\0\0",
            b"\x21\0\x07TLSv1.3",
            b"\x22\0\x05alice",
            b"\x23\0\x16TLS_AES_256_GCM_SHA384",
            b"\xe0\0\x06tunnel",
            b"\xe1\0\x09turnstile",
        ];
        let written = client.header(Version::V2);
        assert_eq!(written, expected.concat(), "{}", written.escape_ascii());
        assert_eq!(line(&client), line(&plain), "the first version has no room for it");
    }

    #[test]
    fn who_showed_no_certificate_was_not_verified() {
        let security = Security { version: "TLSv1.2", ..Security::default() };
        let client = Client { security: Some(security), ..Client::default() };
        let written = client.header(Version::V2);
        assert_eq!(&written[..16], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x15");
        assert_eq!(&written[16..24], b"\x20\0\x12\x01\0\0\0\x01");
    }

    #[test]
    fn a_name_that_is_too_long_is_left_out_and_not_cut() {
        let with = |name: String| {
            let security = Security { certificate: Some(vec![name]), ..Security::default() };
            let client = Client { security: Some(security), ..Client::default() };
            client.header(Version::V2)
        };
        let names = [(255, true), (256, false), (70_000, false)];
        for (len, is_there) in names {
            let header = with("n".repeat(len));
            assert_eq!(header.windows(3).any(|it| it == b"nnn"), is_there, "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            source in any::<(IpAddr, u16)>(),
            destination in any::<(IpAddr, u16)>(),
            server_name in prop::option::of("[a-z.]{1,64}"),
            identity in prop::option::of("[a-z]{1,64}"),
        ) {
            let (source, destination) = of_one_family(source.into(), destination.into());
            let security = Security {
                version: "TLSv1.3",
                server_name: server_name.as_deref(),
                ..Security::default()
            };
            let addresses = Some(Addresses { source, destination });
            let identity = identity.as_deref();
            let client = Client { addresses, security: Some(security), identity };
            for version in [Version::V1, Version::V2] {
                let header = client.header(version);
                let (announced, len) = read(&header).expect("sound").expect("whole");
                prop_assert_eq!((announced.addresses, len), (addresses, header.len()));
                if version == Version::V2 {
                    let word = |key: &str, value: Option<&str>| match value {
                        Some(value) => announced.details.contains(&format!("{key}={value}")),
                        None => !announced.details.contains(key),
                    };
                    prop_assert!(word("authority", server_name.as_deref()), "{}", announced.details);
                    prop_assert!(word("identity", identity), "{}", announced.details);
                }
            }
        }
    }
}
