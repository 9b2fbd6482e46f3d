//! Interfaces, addresses, neighbours and routes, by `rtnetlink(7)`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::netlink::{Attributes, CREATE, EXCLUSIVE, Message, Netlink, find};

/// A hardware address.
pub(super) type Hardware = [u8; 6];

// From `linux/rtnetlink.h`, `if_link.h`, `if_addr.h` and `neighbour.h`.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const GET_LINK: u16 = 18;
const GET_ROUTE: u16 = 26;
const MAIN_TABLE: u8 = 254;
const UNICAST: u8 = 1;
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_HEAD: usize = 12;
const LINK_HEAD: usize = 16;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const IS_UP: u32 = 1;
const LINK_HARDWARE: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

/// One end of a cable.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) hardware: Hardware,
}

/// Lays a cable: `near` here, which is up, and `far` in that namespace, which can't be before the cable is whole.
pub(super) fn lay_cable(
    netlink: &mut Netlink,
    near: &End<'_>,
    far: &End<'_>,
    namespace: BorrowedFd<'_>,
    mtu: u32,
) -> Result<u32, Errno> {
    let peer = Attributes::after(&[0; LINK_HEAD])
        .with(LINK_NAME, &name(far.name))
        .with(LINK_HARDWARE, &far.hardware)
        .with(LINK_MTU, &mtu.to_ne_bytes())
        .with(
            LINK_NAMESPACE,
            &namespace.as_raw_fd().cast_unsigned().to_ne_bytes(),
        );
    let info = Attributes::new()
        .with(INFO_KIND, b"veth")
        .with_nested(INFO_DATA, &Attributes::new().with_nested(VETH_PEER, &peer));
    let message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &up(0))
        .with(LINK_NAME, &name(near.name))
        .with(LINK_HARDWARE, &near.hardware)
        .with(LINK_MTU, &mtu.to_ne_bytes())
        .with_nested(LINK_INFO, &info);
    netlink.ask(message)?;
    name_to_index(netlink.as_fd(), near.name)
}

/// Brings an interface up.
pub(super) fn bring_up(netlink: &mut Netlink, interface: u32) -> Result<(), Errno> {
    netlink.ask(Message::new(NEW_LINK, 0, &up(interface)))
}

/// Begins a message that says that the interface is up; 0 is one that is made by it.
fn up(interface: u32) -> [u8; LINK_HEAD] {
    let mut head = [0; LINK_HEAD];
    head[4..8].copy_from_slice(&interface.to_ne_bytes());
    head[8..12].copy_from_slice(&IS_UP.to_ne_bytes());
    head[12..16].copy_from_slice(&IS_UP.to_ne_bytes());
    head
}

/// Removes an interface, and the other end of its cable.
pub(super) fn remove(netlink: &mut Netlink, interface: u32) -> Result<(), Errno> {
    let mut head = [0; LINK_HEAD];
    head[4..8].copy_from_slice(&interface.to_ne_bytes());
    netlink.ask(Message::new(DELETE_LINK, 0, &head))
}

/// Gives the interface an address, for itself alone.
pub(super) fn add_address(
    netlink: &mut Netlink,
    interface: u32,
    address: IpAddr,
) -> Result<(), Errno> {
    // Nobody else has it: no need to ask around first.
    const NO_DETECTION: u8 = 2;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let bytes = address_bytes(address);
    let mut head = [0; 8];
    head[..3].copy_from_slice(&[family(address), bits(address), NO_DETECTION]);
    head[4..].copy_from_slice(&interface.to_ne_bytes());
    let message = Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &head)
        .with(LOCAL, &bytes)
        .with(ADDRESS, &bytes);
    netlink.ask(message)
}

/// Tells which hardware has an address, so that nobody is asked.
pub(super) fn add_neighbour(
    netlink: &mut Netlink,
    interface: u32,
    address: IpAddr,
    hardware: Hardware,
) -> Result<(), Errno> {
    const PERMANENT: u16 = 0x80;
    const DESTINATION: u16 = 1;
    const HARDWARE: u16 = 2;
    let mut head = [0; 12];
    head[0] = family(address);
    head[4..8].copy_from_slice(&interface.to_ne_bytes());
    head[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    let message = Message::new(NEW_NEIGHBOUR, CREATE, &head)
        .with(DESTINATION, &address_bytes(address))
        .with(HARDWARE, &hardware);
    netlink.ask(message)
}

/// Where packets go.
pub(super) enum Route {
    /// To this one address, over the interface. Refused with `EEXIST` when there is a way to it already.
    Only(IpAddr),
    /// To anywhere, by way of this one.
    Everything { by: IpAddr },
}

/// Adds a route over the interface.
pub(super) fn add_route(netlink: &mut Netlink, interface: u32, route: &Route) -> Result<(), Errno> {
    const STATIC: u8 = 4;
    const SCOPE_ANYWHERE: u8 = 0;
    const SCOPE_LINK: u8 = 253;
    // The gateway is there although no route says so.
    const ON_LINK: u32 = 4;
    const DESTINATION: u16 = 1;
    const GATEWAY: u16 = 5;
    let (address, length, scope, flags, attribute) = match route {
        Route::Only(address) => (*address, bits(*address), SCOPE_LINK, 0, DESTINATION),
        Route::Everything { by } => (*by, 0, SCOPE_ANYWHERE, ON_LINK, GATEWAY),
    };
    let scope = if address.is_ipv6() {
        SCOPE_ANYWHERE
    } else {
        scope
    };
    let mut head = [
        family(address),
        length,
        0,
        0,
        MAIN_TABLE,
        STATIC,
        scope,
        UNICAST,
        0,
        0,
        0,
        0,
    ];
    head[8..].copy_from_slice(&flags.to_ne_bytes());
    let message = Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &head)
        .with(attribute, &address_bytes(address))
        .with(ROUTE_INTERFACE, &interface.to_ne_bytes());
    netlink.ask(message)
}

/// The interfaces by which packets go anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WaysOut {
    pub(super) ipv4: Option<u32>,
    pub(super) ipv6: Option<u32>,
}

/// Which they are in the socket's namespace.
pub(super) fn ways_out(netlink: &mut Netlink) -> Result<WaysOut, Errno> {
    let mut found = WaysOut::default();
    let all = Message::new(GET_ROUTE, 0, &[0; ROUTE_HEAD]);
    netlink.list(&all, |body| note_way_out(body, &mut found))?;
    Ok(found)
}

fn note_way_out(body: &[u8], found: &mut WaysOut) {
    let Some((head, attributes)) = body.split_first_chunk::<ROUTE_HEAD>() else {
        return;
    };
    let interface = find(attributes, ROUTE_INTERFACE).and_then(number);
    // An unreachable one stands for no way out where there is no IPv6.
    let (destination_bits, table, kind) = (head[1], head[4], head[7]);
    if (destination_bits, table, kind) != (0, MAIN_TABLE, UNICAST) {
        return;
    }
    match head[0] {
        IPV4 => found.ipv4 = found.ipv4.or(interface),
        IPV6 => found.ipv6 = found.ipv6.or(interface),
        _ => {}
    }
}

/// The largest packet that the interface takes.
pub(super) fn mtu(netlink: &mut Netlink, interface: u32) -> Result<Option<u32>, Errno> {
    let mut found = None;
    netlink.list(&Message::new(GET_LINK, 0, &[0; LINK_HEAD]), |body| {
        let Some((head, attributes)) = body.split_first_chunk::<LINK_HEAD>() else {
            return;
        };
        if number(&head[4..8]) == Some(interface) {
            found = find(attributes, LINK_MTU).and_then(number);
        }
    })?;
    Ok(found)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk::<4>()?))
}

/// As the kernel writes it.
pub(super) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route as the kernel tells of it.
    fn route(family: u8, bits: u8, table: u8, kind: u8) -> Vec<u8> {
        let head = [family, bits, 0, 0, table, 2, 0, kind, 0, 0, 0, 0];
        let mut body = head.to_vec();
        body.extend([8, 0, 4, 0]);
        body.extend(7_u32.to_ne_bytes());
        body
    }

    #[test]
    fn only_what_leads_anywhere_is_a_way_out() {
        let rows = [
            (route(IPV4, 0, MAIN_TABLE, UNICAST), (Some(7), None)),
            (route(IPV6, 0, MAIN_TABLE, UNICAST), (None, Some(7))),
            (route(IPV4, 24, MAIN_TABLE, UNICAST), (None, None)),
            (route(IPV4, 0, 255, UNICAST), (None, None)),
            (route(IPV6, 0, MAIN_TABLE, 7), (None, None)),
            (vec![IPV4, 0], (None, None)),
        ];
        for (body, (ipv4, ipv6)) in rows {
            let mut found = WaysOut::default();
            note_way_out(&body, &mut found);
            assert_eq!(found, WaysOut { ipv4, ipv6 }, "{body:?}");
        }
    }
}
