//! Which addresses a new instance gets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::model::AddressPair;

/// The lowest host address of `pool` that is neither in use nor in quarantine, with its mirror in
/// `pool6`; never network, broadcast or gateway. `None` where all are taken.
///
/// The mirror has the same host number (10.0.0.7/24 goes with fd00::7/64), so one number stands for both
/// families. A number whose address in either family is taken is left out.
#[must_use]
pub fn lease(
    pool: Ipv4Net,
    pool6: Option<Ipv6Net>,
    gateway: Ipv4Addr,
    in_use: &BTreeSet<IpAddr>,
    quarantined: &BTreeSet<IpAddr>,
) -> Option<AddressPair> {
    let (network, broadcast) = (u32::from(pool.network()), u32::from(pool.broadcast()));
    let free = |address: IpAddr| !in_use.contains(&address) && !quarantined.contains(&address);
    (network.saturating_add(1)..broadcast).find_map(|number| {
        let v4 = Ipv4Addr::from(number);
        if v4 == gateway || !free(v4.into()) {
            return None;
        }
        let v6 = match pool6 {
            None => None,
            Some(net) => Some(host6(net, number - network).filter(|v6| free((*v6).into()))?),
        };
        Some(AddressPair { v4: Some(v4), v6 })
    })
}

/// The address of a prefix with that host number; `None` where the prefix has no such.
#[must_use]
pub fn host6(net: Ipv6Net, host: u32) -> Option<Ipv6Addr> {
    let address = Ipv6Addr::from(u128::from(net.network()).checked_add(u128::from(host))?);
    net.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn the_lowest_free_pair_is_leased() {
        let (pool, pool6) = ("10.0.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap());
        let gateway = "10.0.0.1".parse().unwrap();
        let got = lease(pool, Some(pool6), gateway, &set(&["10.0.0.2", "fd00::3"]), &set(&["10.0.0.4"])).unwrap();
        assert_eq!(got.v4.unwrap().to_string(), "10.0.0.5");
        assert_eq!(got.v6.unwrap().to_string(), "fd00::5");
        let all = set(&["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(lease(pool, None, gateway, &all, &set(&[])), None);
    }

    #[test]
    fn the_ends_of_the_address_space_are_no_trap() {
        let none = BTreeSet::new();
        for net in ["255.255.255.248/29", "0.0.0.0/29", "255.255.255.254/31", "255.255.255.255/32", "0.0.0.0/0"] {
            let pool: Ipv4Net = net.parse().unwrap();
            if let Some(pair) = lease(pool, None, Ipv4Addr::UNSPECIFIED, &none, &none) {
                assert!(pair.v4.unwrap() != pool.network() && pair.v4.unwrap() != pool.broadcast(), "{net}");
            }
        }
        assert_eq!(host6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120".parse().unwrap(), 256), None);
    }

    proptest! {
        #[test]
        fn leases_are_unique_until_the_pool_is_full(prefix in 24u8..=30, gateway_at in 1u32..=254, with_v6: bool) {
            let pool = Ipv4Net::new(Ipv4Addr::new(10, 1, 2, 0), prefix).unwrap();
            let pool6: Option<Ipv6Net> = with_v6.then(|| "fd00:1::/96".parse().unwrap());
            let hosts = (1u32 << (32 - prefix)) - 2;
            let gateway = Ipv4Addr::from(u32::from(pool.network()) + 1 + gateway_at % hosts);
            let (mut taken, none, mut leases) = (BTreeSet::new(), BTreeSet::new(), 0);
            while let Some(pair) = lease(pool, pool6, gateway, &taken, &none) {
                let v4 = pair.v4.unwrap();
                prop_assert!(pool.contains(&v4) && v4 != pool.network() && v4 != pool.broadcast() && v4 != gateway);
                prop_assert!(taken.insert(v4.into()), "{} twice", v4);
                prop_assert_eq!(pair.v6.is_some(), with_v6);
                if let Some(v6) = pair.v6 {
                    let host = u128::from(v6) - u128::from(pool6.unwrap().network());
                    prop_assert_eq!(host, u128::from(u32::from(v4) - u32::from(pool.network())));
                    prop_assert!(taken.insert(v6.into()), "{} twice", v6);
                }
                leases += 1;
            }
            prop_assert_eq!(leases, hosts - 1);
        }

        #[test]
        fn a_quarantined_address_is_as_taken(blocked in prop::collection::btree_set(1u8..255, 0..254)) {
            let pool = "10.1.2.0/24".parse().unwrap();
            let gateway = "10.1.2.1".parse().unwrap();
            let blocked: BTreeSet<IpAddr> = blocked.iter().map(|b| Ipv4Addr::new(10, 1, 2, *b).into()).collect();
            let none = BTreeSet::new();
            prop_assert_eq!(lease(pool, None, gateway, &blocked, &none), lease(pool, None, gateway, &none, &blocked));
        }
    }
}
