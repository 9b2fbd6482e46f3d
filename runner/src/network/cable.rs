//! A private network as root: a veth pair from the namespace to the host, and an nft table that lets what comes over it out into
//! the world and nowhere else.
//!
//! ```text
//! namespace                                      host
//!   eth0  10.213.x.y/32, fd72:6275:696c::x:y/128   rbNAME   no address
//!   default by 169.254.1.1 and fe80::1  ────────▶  route to 10.213.x.y by rbNAME, masqueraded on the way out
//! ```
//!
//! Unless the host is to be reached, its end has no address: who the hardware addresses belong to is told to both sides, and the gateway's addresses are
//! nobody's. A network's address is its own because the kernel takes one route to it only.
//!
//! **What stays behind**: nothing. The pair ends with the namespace, and the table with the socket that made it, also after a
//! SIGKILL. Before Linux 5.12 tables have no owners; whoever lays the next cable removes those whose interface is gone.
//!
//! Nothing of the host's settings is changed. Where forwarding is off, or another tool's firewall drops what is forwarded,
//! that is the reason why there is no cable.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::firewall::{self, Firewall};
use super::link::{self, End, Hardware, Route, WaysOut};
use super::netlink::Netlink;
use super::xtables;
use crate::job::NetworkJob;

/// What names of interfaces begin with; the kernel takes 15 bytes.
const PREFIX: &str = "rb";
/// How much of a network's name fits behind it.
const LONGEST_NAME: usize = 13;

/// The end in the namespace.
const FAR_NAME: &str = "eth0";

/// Addresses of networks are taken from here.
const IPV4: [u8; 2] = [10, 213];
const IPV6: [u16; 3] = [0xfd72, 0x6275, 0x696c];
/// The gateway's, on every cable.
const GATEWAY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// How many addresses are tried until one is free; there are some 65,000.
const TRIES: u32 = 20;

/// Of interfaces for which nothing else is said.
const DEFAULT_MTU: u32 = 1500;

/// A laid cable. It ends when this value and the namespace are gone.
#[derive(Debug)]
pub(super) struct Cable {
    _firewall: Firewall,
}

/// Why there can be no cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// What is in the way.
    pub(crate) reason: String,
    /// How to get it out of the way.
    pub(crate) remedy: String,
}

/// What the host does with packets of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ways {
    ipv4: bool,
    ipv6: bool,
    mtu: u32,
}

/// Lays a cable into the namespace. `inside` is a route socket that was opened there.
pub(super) fn lay(
    job: &NetworkJob,
    namespace: BorrowedFd<'_>,
    inside: &mut Netlink,
) -> Result<Cable, Obstacle> {
    let mut here = Netlink::route().map_err(|errno| failed("cannot ask for interfaces", errno))?;
    let ways = look_around(&mut here)?;
    let short = job.name.get(..LONGEST_NAME).unwrap_or(&job.name);
    remove_abandoned(&here);
    let random = |errno| failed("cannot have random numbers", errno);
    let near = End {
        name: &format!("{PREFIX}{short}"),
        hardware: hardware().map_err(random)?,
    };
    let far = End {
        name: FAR_NAME,
        hardware: hardware().map_err(random)?,
    };
    let index = link::lay_cable(&mut here, &near, &far, namespace, ways.mtu)
        .map_err(|errno| failed("cannot make a veth pair", errno))?;
    let host = job.leads_to_host.then_some(IpAddr::V4(NetworkJob::HOST));
    let firewall = claim_addresses(&mut here, index, ways)
        .and_then(|addresses| {
            let far_index = name_to_index(inside.as_fd(), FAR_NAME)?;
            link::bring_up(inside, far_index)?;
            for address in &addresses {
                let ends = (near.hardware, far.hardware);
                connect((&mut here, index), (inside, far_index), *address, ends)?;
            }
            if let Some(host) = host {
                link::add_address(&mut here, index, host)?;
            }
            Ok(addresses)
        })
        .map_err(|errno| failed("cannot give a veth pair an address", errno))
        .and_then(|addresses| {
            Firewall::raise(short, index, &addresses, host)
                .map_err(|errno| failed("cannot make an nft table", errno))
        });
    if firewall.is_err() {
        // It would be in the way of what is tried next, and otherwise ends with the namespace.
        let _ = link::remove(&mut here, index);
    }
    firewall.map(|firewall| Cable {
        _firewall: firewall,
    })
}

fn failed(what: &str, errno: Errno) -> Obstacle {
    Obstacle {
        reason: format!("{what}: {errno}"),
        remedy: "it takes CAP_NET_ADMIN, and a kernel with veth and nf_tables".to_owned(),
    }
}

/// Looks whether a cable would lead anywhere, and changes nothing.
fn look_around(here: &mut Netlink) -> Result<Ways, Obstacle> {
    let out = link::ways_out(here).unwrap_or_default();
    let is_on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let ipv4 = is_on("/proc/sys/net/ipv4/ip_forward");
    let ipv6 = out.ipv6.is_some() && is_on("/proc/sys/net/ipv6/conf/all/forwarding");
    // A host with IPv6 alone has to forward that.
    let (is_forwarding, setting) = match out {
        WaysOut {
            ipv4: None,
            ipv6: Some(_),
        } => (ipv6, "net.ipv6.conf.all.forwarding"),
        _ => (ipv4, "net.ipv4.ip_forward"),
    };
    if !is_forwarding {
        return Err(Obstacle {
            reason: format!("forwarding is off (`{setting}`)"),
            remedy: switch_on(setting),
        });
    }
    if let Some(whose) = who_drops_forwarded(ipv6) {
        return Err(Obstacle {
            reason: format!("the firewall of another tool drops what is forwarded ({whose})"),
            remedy:
                "have it accept, or install `pasta` (package passt), which needs nothing forwarded"
                    .to_owned(),
        });
    }
    let device = out.ipv4.or(out.ipv6);
    let mtu = device.and_then(|device| link::mtu(here, device).ok().flatten());
    Ok(Ways {
        ipv4,
        ipv6,
        mtu: mtu.unwrap_or(DEFAULT_MTU),
    })
}

/// Whose firewall drops what is forwarded.
fn who_drops_forwarded(has_ipv6: bool) -> Option<String> {
    // What can't be asked is not there: kernels without nf_tables or x_tables.
    if let Ok(Some((table, chain))) = firewall::who_drops_forwarded() {
        return Some(format!("nft table `{table}`, chain `{chain}`"));
    }
    let (program, table) = xtables::who_drops_forwarded(has_ipv6)?;
    Some(format!("{program}, table `{table}`, chain `FORWARD`"))
}

/// What is in the way of a cable on this machine; for `rbuild info`.
pub(crate) fn obstacle() -> Option<Obstacle> {
    match Netlink::route() {
        Ok(mut here) => look_around(&mut here).err(),
        Err(errno) => Some(failed("cannot ask for interfaces", errno)),
    }
}

/// How forwarding is switched on, and whether that can be done from here.
fn switch_on(setting: &str) -> String {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    let is_read_only =
        statvfs("/proc/sys").is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only {
        return format!(
            "/proc/sys is read-only here, so switch it on from outside (`sysctl {setting}=1`; `--sysctl {setting}=1` for this container), \
             or install `pasta` (package passt), which needs nothing forwarded"
        );
    }
    format!(
        "`sysctl {setting}=1`, or install `pasta` (package passt), which needs nothing forwarded"
    )
}

/// Takes addresses that no other network has: the kernel takes one route to each.
fn claim_addresses(here: &mut Netlink, index: u32, ways: Ways) -> Result<Vec<IpAddr>, Errno> {
    let mut result = Err(Errno::ADDRINUSE);
    for _ in 0..TRIES {
        let [high, low] = random()?;
        if matches!(low, 0 | 255) {
            continue;
        }
        let four = IpAddr::V4(Ipv4Addr::new(IPV4[0], IPV4[1], high, low));
        let [a, b, c] = IPV6;
        let last = u16::from_be_bytes([high, low]);
        let six = IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last));
        let addresses = [(ways.ipv4, four), (ways.ipv6, six)];
        let addresses: Vec<IpAddr> = addresses
            .into_iter()
            .filter_map(|(is_wanted, address)| is_wanted.then_some(address))
            .collect();
        result = addresses
            .iter()
            .try_for_each(|address| link::add_route(here, index, &Route::Only(*address)))
            .map(|()| addresses);
        if !matches!(result, Err(Errno::EXIST)) {
            break;
        }
    }
    result
}

/// Makes the address reachable from here, and the gateway from there.
fn connect(
    (here, near_index): (&mut Netlink, u32),
    (there, index): (&mut Netlink, u32),
    address: IpAddr,
    (near, far): (Hardware, Hardware),
) -> Result<(), Errno> {
    let gateway = if address.is_ipv4() {
        GATEWAY_IPV4
    } else {
        GATEWAY_IPV6
    };
    link::add_neighbour(here, near_index, address, far)?;
    link::add_address(there, index, address)?;
    link::add_neighbour(there, index, gateway, near)?;
    link::add_route(there, index, &Route::Everything { by: gateway })
}

/// Tables of networks whose interface is gone: of processes that were killed, before Linux 5.12.
fn remove_abandoned(here: &Netlink) {
    // What can't be removed harms nobody: its interface is gone.
    let _ = firewall::remove_abandoned(|network| {
        let name = format!("{PREFIX}{network}");
        name_to_index(here.as_fd(), &name).is_ok()
    });
}

/// An address that nobody was given by a manufacturer.
fn hardware() -> Result<Hardware, Errno> {
    let mut hardware: Hardware = random()?;
    // Locally administered, and not of a group.
    hardware[0] = (hardware[0] & !1) | 2;
    Ok(hardware)
}

fn random<const N: usize>() -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}
