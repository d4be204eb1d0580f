//! What `http://` and `https://` addresses mean: where to connect, and the request that is sent.
//!
//! It writes requests of HTTP/1.1 (RFC 9112); replies are read [elsewhere](super::http).

use std::fmt;
use std::str::FromStr;

use super::payload::Payload;
use crate::config::Address;

/// Where a load goes, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where to connect.
    pub address: Address,
    /// What is asked for there, where it is a URL.
    pub url: Option<Url>,
}

/// A URL of HTTP (RFC 3986), taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// The host, and its port where it is not the usual one.
    authority: String,
    /// The path and the query.
    path: String,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, usual_port, rest) = match text.split_once("://") {
            Some(("http", rest)) => ("tcp", 80, rest),
            Some(("https", rest)) => ("tls", 443, rest),
            _ => {
                let address = text.parse::<Address>().map_err(|error| error.to_string())?;
                return Ok(Self { address, url: None });
            }
        };
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.contains('@') {
            return Err(format!(
                "`{text}`: a password is no part of an address; give --header 'Authorization: ...'"
            ));
        }
        if let Some(sign) = path.chars().find(|sign| !sign.is_ascii_graphic()) {
            return Err(format!("`{text}`: write {sign:?} in its percent-encoded form (RFC 3986)"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port { String::new() } else { format!(":{usual_port}") };
        let address: Address = format!("{scheme}://{host}{port}")
            .parse()
            .map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        let at = address.host_port().ok_or("a URL has a host")?;
        let whole = at.to_string();
        let usual = format!(":{usual_port}");
        let authority = whole.strip_suffix(&usual).unwrap_or(&whole).to_owned();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = Url { text: text.to_owned(), authority, path: format!("{slash}{path}") };
        Ok(Self { address, url: Some(url) })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A line of a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: String,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("`{}` is not a header such as 'Accept: text/html'", text.escape_debug());
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let value = value.trim();
        if !is_token(name) || value.contains(|sign: char| sign.is_control() && sign != '\t') {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The name of a method, such as `GET`.
///
/// # Errors
/// It is none.
pub fn parse_method(text: &str) -> Result<String, String> {
    match text {
        "CONNECT" => Err("CONNECT asks for a tunnel, which is not measured here".to_owned()),
        _ if is_token(text) => Ok(text.to_owned()),
        _ => Err(format!("`{}` is not a method such as GET or POST", text.escape_debug())),
    }
}

/// Names of methods and header fields (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_sign)
}

/// The request for `url`, with these `fields`, and `content` where there is any. Without a `method`
/// it is GET, or POST where there is content.
#[must_use]
pub fn request(
    url: &Url,
    method: Option<&str>,
    fields: &[Field],
    content: Option<Payload>,
) -> Payload {
    let method = method.unwrap_or(if content.is_some() { "POST" } else { "GET" });
    let mut head = format!("{method} {} HTTP/1.1\r\n", url.path);
    let has = |name: &str| fields.iter().any(|field| field.name.eq_ignore_ascii_case(name));
    if !has("Host") {
        head += &format!("Host: {}\r\n", url.authority);
    }
    for Field { name, value } in fields {
        head += &format!("{name}: {value}\r\n");
    }
    let says_length = has("Content-Length") || has("Transfer-Encoding");
    match content {
        Some(Payload::Template(template)) if !says_length => {
            head += "Content-Length: ";
            Payload::Http(head.into_bytes(), template)
        }
        None => Payload::Fixed((head + "\r\n").into_bytes()),
        Some(content) => {
            let mut scratch = Vec::new();
            let content = content.request(0, &mut scratch);
            if !says_length {
                head += &format!("Content-Length: {}\r\n", content.len());
            }
            Payload::Fixed([head.as_bytes(), b"\r\n", content].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> (Address, Url) {
        let Destination { address, url } = text.parse().expect(text);
        (address, url.expect("a URL"))
    }

    fn sent(payload: &Payload, number: u64) -> String {
        let mut scratch = Vec::new();
        String::from_utf8(payload.request(number, &mut scratch).to_vec()).expect("text")
    }

    #[test]
    fn a_url_says_where_to_and_what_for() {
        let cases = [
            ("http://Example.org", "tcp://example.org:80", "example.org", "/"),
            (
                "http://example.org:8080?a=b#c",
                "tcp://example.org:8080",
                "example.org:8080",
                "/?a=b",
            ),
            ("https://[::1]/x/y", "tls://[::1]:443", "[::1]", "/x/y"),
            ("https://h:80/", "tls://h:80", "h:80", "/"),
        ];
        for (text, address, authority, path) in cases {
            let (found, url) = destination(text);
            assert_eq!((found.to_string(), url.to_string()), (address.to_owned(), text.to_owned()));
            assert_eq!((url.authority.as_str(), url.path.as_str()), (authority, path), "{text}");
        }
        for text in [
            "http://",
            "http:///x",
            "http://a@b/",
            "http://h/ ",
            "http://h/ü",
            "ftp://h",
            "http://h:x/",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
        assert_eq!("h:1".parse::<Destination>().expect("an address").url, None);
    }

    #[test]
    fn a_request_has_what_it_needs_and_what_was_given() {
        let (_, url) = destination("http://h/x");
        assert_eq!(sent(&request(&url, None, &[], None), 0), "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        let fields = ["host: other".parse().expect("sound"), "X:  y ".parse().expect("sound")];
        let content = Some(Payload::Fixed(b"abc".to_vec()));
        assert_eq!(
            sent(&request(&url, None, &fields, content), 0),
            "POST /x HTTP/1.1\r\nhost: other\r\nX: y\r\nContent-Length: 3\r\n\r\nabc"
        );
        let template = Some(Payload::Template("n={counter}".parse().expect("sound")));
        let counted = request(&url, Some("PUT"), &[], template);
        assert!(sent(&counted, 7).ends_with("Content-Length: 3\r\n\r\nn=7"));
        assert!(sent(&counted, 123).ends_with("Content-Length: 5\r\n\r\nn=123"));
    }

    #[test]
    fn nothing_is_smuggled_into_a_request() {
        for text in ["no colon", "a b: c", "a: b\r\nc: d", ": x", "a: \0"] {
            assert!(text.parse::<Field>().is_err(), "{text:?}");
        }
        for text in ["", "G ET", "GET\r\n", "CONNECT"] {
            assert!(parse_method(text).is_err(), "{text:?}");
        }
    }
}
