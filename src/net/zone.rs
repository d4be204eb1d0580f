//! The zone of a link-local address (RFC 4007, 11): by name or number, the interface behind which
//! the address is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::net::if_::if_nametoindex;

/// `address` behind the interface that `zone` names. The interface is looked for anew each time, so
/// that one that has come, or come again, is found.
///
/// # Errors
/// There is no such interface.
pub fn place(address: SocketAddr, zone: Option<&str>) -> io::Result<SocketAddr> {
    let (mut address, Some(zone)) = (address, zone) else { return Ok(address) };
    if let SocketAddr::V6(address) = &mut address {
        let number = if_nametoindex(zone).ok().or_else(|| zone.parse().ok());
        let unknown = || io::Error::other(format!("there is no interface `{zone}` (`ip link`)"));
        address.set_scope_id(number.ok_or_else(unknown)?);
    }
    Ok(address)
}

/// The place that a host given by an IPv6 address with its zone, such as `fe80::1%eth0`, and a port
/// mean; `None` where `host` is no such address.
///
/// # Errors
/// As [`place`].
pub fn place_of(host: &str, port: u16) -> Option<io::Result<SocketAddr>> {
    let (number, zone) = host.split_once('%')?;
    let ip: IpAddr = number.parse().ok()?;
    Some(place(SocketAddr::new(ip, port), Some(zone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_the_name_or_the_number_of_an_interface() {
        let loopback = if_nametoindex("lo").expect("every machine has it");
        for zone in ["lo", &loopback.to_string()] {
            let place = place_of(&format!("fe80::1%{zone}"), 53).expect("a zone").expect("there");
            assert_eq!(place.to_string(), format!("[fe80::1%{loopback}]:53"));
        }
        let error = place_of("fe80::1%none0", 53).expect("a zone").expect_err("not there");
        assert!(error.to_string().contains("`none0`"), "{error}");
        assert!(place_of("fe80::1", 53).is_none() && place_of("a%b", 53).is_none());
        let address = SocketAddr::from(([192, 0, 2, 1], 53));
        assert_eq!(place(address, None).expect("no zone"), address);
    }
}
