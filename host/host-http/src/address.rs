//! Which addresses a job document may lead to.
//!
//! A gateway stands inside somebody's network, and a URL from outside must not make it talk to what stands there: its own
//! services, its neighbours, the metadata service of a cloud. So only public addresses are connected to, except for
//! networks that the operator names. The lists are IANA's special-purpose registries (RFC 6890 and what came after).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why an address is not a public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressKind {
    /// 0.0.0.0/8, ::.
    Unspecified,
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16, fe80::/10: also the metadata services of clouds.
    LinkLocal,
    /// 10/8, 172.16/12, 192.168/16, fc00::/7, fec0::/10, and 100.64/10 behind a carrier's translator.
    Private,
    /// 224/4, ff00::/8, and the broadcast address.
    Multicast,
    /// Set aside for documents, measurements, protocols, or not yet given to anybody.
    Reserved,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        })
    }
}

/// What is special about an address; none = it is public.
pub(crate) fn special(address: IpAddr) -> Option<AddressKind> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => special_v4(inner).or_else(|| special_v6(address)),
            None => special_v6(address),
        },
    }
}

fn special_v4(address: Ipv4Addr) -> Option<AddressKind> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, _, _) => AddressKind::Unspecified,
        (127, _, _) => AddressKind::Loopback,
        (169, 254, _) => AddressKind::LinkLocal,
        (10, _, _) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => AddressKind::Private,
        (224..=239, _, _) | (255, 255, 255) => AddressKind::Multicast,
        // Protocol assignments, three networks for documents, 6to4 relays, benchmarks, and the last sixteenth.
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18 | 19, _) => {
            AddressKind::Reserved
        }
        (240..=255, _, _) => AddressKind::Reserved,
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<AddressKind> {
    let first = address.segments()[0];
    let second = address.segments()[1];
    Some(match (first, second) {
        _ if address.is_unspecified() => AddressKind::Unspecified,
        _ if address.is_loopback() => AddressKind::Loopback,
        (0xfe80..=0xfebf, _) => AddressKind::LinkLocal,
        (0xfc00..=0xfdff, _) | (0xfec0..=0xfeff, _) => AddressKind::Private,
        (0xff00..=0xffff, _) => AddressKind::Multicast,
        // Well-known NAT64: what it leads to is in its last four bytes and was looked at before.
        (0x64, 0xff9b) if address.segments()[2..6] == [0; 4] => return None,
        // Documents (two networks), protocol assignments with Teredo, and 6to4, whose inner address was looked at.
        (0x2001, 0x0db8 | 0..=0x01ff) | (0x3fff, 0..=0x0fff) => AddressKind::Reserved,
        // Only 2000::/3 has been given out; mapped and compatible addresses of IPv4 are no way to write a public one.
        (0x2000..=0x3fff, _) => return None,
        _ => AddressKind::Reserved,
    })
}

/// The IPv4 address that a translator or tunnel would reach: mapped, compatible, NAT64, 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let from = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => from(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if !(high == 0 && low <= 1) => from(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

/// A network as `address/bits`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        // What reaches an IPv4 address is that address, however it is written.
        let address = match address {
            IpAddr::V6(v6) => v6.to_canonical(),
            v4 @ IpAddr::V4(_) => v4,
        };
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let shift = width - u32::from(self.bits);
        // A shift by the whole width is no shift at all in the processor.
        shift >= 128 || (own ^ other) >> shift == 0
    }
}

/// Networks that the operator named, by commas in text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// What is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network, expected an IP address or one with its bits, such as 10.1.0.0/16")]
pub struct NetworksError(String);

impl Networks {
    /// Whether an address lies in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Adds one, as text.
    ///
    /// # Errors
    /// It is no network.
    pub fn add(&mut self, text: &str) -> Result<(), NetworksError> {
        let wrong = || NetworksError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let width: u8 = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.trim().parse().map_err(|_| wrong())?,
            None => width,
        };
        if bits > width {
            return Err(wrong());
        }
        self.0.push(Network { address, bits });
        Ok(())
    }
}

impl FromStr for Networks {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        let mut networks = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            networks.add(part)?;
        }
        Ok(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        use AddressKind::*;
        let rows = [
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.1.2", Some(Loopback)),
            ("169.254.169.254", Some(LinkLocal)),
            ("10.0.0.1", Some(Private)),
            ("172.15.255.255", None),
            ("172.16.0.1", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("172.32.0.0", None),
            ("192.168.7.1", Some(Private)),
            ("192.169.0.1", None),
            ("100.63.255.255", None),
            ("100.64.0.1", Some(Private)),
            ("100.128.0.1", None),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.250", Some(Multicast)),
            ("255.255.255.255", Some(Multicast)),
            ("240.0.0.1", Some(Reserved)),
            ("192.0.0.8", Some(Reserved)),
            ("192.0.2.1", Some(Reserved)),
            ("198.18.0.1", Some(Reserved)),
            ("198.51.100.7", Some(Reserved)),
            ("203.0.113.7", Some(Reserved)),
            ("8.8.8.8", None),
            ("52.216.0.1", None),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("fc00::1", Some(Private)),
            ("fd00:ec2::254", Some(Private)),
            ("ff02::1", Some(Multicast)),
            ("2001:db8::1", Some(Reserved)),
            ("2001::1", Some(Reserved)),
            ("3fff::1", Some(Reserved)),
            ("100::1", Some(Reserved)),
            ("2600:1f00::1", None),
            // IPv4 in other clothes.
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:10.0.0.1", Some(Private)),
            ("::ffff:8.8.8.8", Some(Reserved)),
            ("::127.0.0.1", Some(Loopback)),
            ("64:ff9b::7f00:1", Some(Loopback)),
            ("64:ff9b::a9fe:a9fe", Some(LinkLocal)),
            ("64:ff9b::808:808", None),
            ("64:ff9b:1::1", Some(Reserved)),
            ("2002:7f00:1::1", Some(Loopback)),
            ("2002:c0a8:101::1", Some(Private)),
        ];
        for (text, kind) in rows {
            assert_eq!(special(text.parse().unwrap()), kind, "{text}");
        }
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let networks: Networks = "10.1.0.0/16, 127.0.0.1,fd00::/8,0.0.0.0/0".parse().unwrap();
        let without_all: Networks = "10.1.0.0/16,127.0.0.1,fd00::/8".parse().unwrap();
        let rows = [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::ffff:127.0.0.1", true),
            ("fd12::1", true),
            ("fe00::1", false),
        ];
        for (text, held) in rows {
            let address = text.parse().unwrap();
            assert_eq!(without_all.contain(address), held, "{text}");
        }
        assert!(networks.contain("9.9.9.9".parse().unwrap()));
        assert!(!networks.contain("2600::1".parse().unwrap()));
        let all: Networks = "::/0".parse().unwrap();
        assert!(all.contain("2600::1".parse().unwrap()));
        assert!(!Networks::default().contain("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in [
            "10.0.0.0/33",
            "::/129",
            "localhost",
            "10.0.0/8",
            "10.0.0.0/x",
            "/8",
        ] {
            let error = bad.parse::<Networks>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
