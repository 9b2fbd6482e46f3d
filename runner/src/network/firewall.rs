//! The nft table of a private network: what comes over its cable may go out into the world, and nowhere on this machine.
//!
//! ```text
//! table inet rbuild-NAME {                      # gone with the socket that made it (Linux 5.12)
//!   chain input   { filter, drop: iif CABLE }   # nothing of this machine is reached, by none of its addresses but the
//!                                               # one that stands for the host, where that was asked for
//!   chain forward { filter, drop: iif CABLE with another source address than its own
//!                           drop: oif CABLE what was not asked for from inside }
//!   chain leave   { nat, masquerade: source address of the network }
//! }
//! ```

use std::net::IpAddr;

use rustix::io::Errno;

use super::link::address_bytes;
use super::netlink::{APPEND, Attributes, CREATE, EXCLUSIVE, Message, Netlink, find};

/// What names of tables begin with.
const PREFIX: &str = "rbuild-";

// From `linux/netfilter/nfnetlink.h`, `nf_tables.h` and `netfilter.h`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = (SUBSYSTEM << 8) | 1;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const GET_CHAIN: u16 = (SUBSYSTEM << 8) | 4;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// The table ends with the socket that made it.
const TABLE_OWNER: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// The register that expressions hand values on in.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

/// Where a chain is hooked in.
#[derive(Clone, Copy)]
enum Hook {
    Input = 1,
    Forward = 2,
    Leave = 4,
}

/// Which packets are meant, one after another.
enum Match<'a> {
    /// Came in over the interface with this index.
    From(u32),
    /// Goes out over it.
    To(u32),
    /// Not an answer to what was sent the other way.
    Unasked,
    /// Is sent to this address.
    Destination(&'a IpAddr),
    /// Has this source address.
    Source(&'a IpAddr),
    /// Is of this address's family and has another source address.
    OtherSource(&'a IpAddr),
}

/// A table; it ends with this value where the kernel knows owners (Linux 5.12), else with [`remove_abandoned`].
#[derive(Debug)]
pub(super) struct Firewall {
    netlink: Netlink,
    name: String,
    /// The kernel removes it with the socket.
    is_owned: bool,
}

impl Firewall {
    /// Makes the table for the interface with this index, behind which are these addresses. This machine is reached by the
    /// address `host`, if any.
    pub(super) fn raise(
        name: &str,
        interface: u32,
        addresses: &[IpAddr],
        host: Option<IpAddr>,
    ) -> Result<Self, Errno> {
        match Self::raise_with(TABLE_OWNER, name, interface, addresses, host) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                Self::raise_with(0, name, interface, addresses, host)
            }
            raised => raised,
        }
    }

    fn raise_with(
        flags: u32,
        name: &str,
        interface: u32,
        addresses: &[IpAddr],
        host: Option<IpAddr>,
    ) -> Result<Self, Errno> {
        let mut netlink = Netlink::netfilter()?;
        let name = format!("{PREFIX}{name}");
        let messages = batch(table(&name, interface, addresses, host, flags));
        netlink.ask_together(messages, |message| message.kind() >= NEW_TABLE)?;
        Ok(Self {
            netlink,
            name,
            is_owned: flags == TABLE_OWNER,
        })
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if !self.is_owned {
            // What can't be removed now is by the next build.
            let _ = delete(&mut self.netlink, &self.name);
        }
    }
}

/// Removes tables of networks that are no more: `is_live` is told the network's name.
pub(super) fn remove_abandoned(is_live: impl Fn(&str) -> bool) -> Result<(), Errno> {
    let mut netlink = Netlink::netfilter()?;
    let mut names = Vec::new();
    netlink.list(&Message::new(GET_TABLE, 0, &head(FAMILY_INET)), |body| {
        names.extend(name_in(body, TABLE_NAME));
    })?;
    for name in names {
        if name
            .strip_prefix(PREFIX)
            .is_some_and(|network| !is_live(network))
        {
            // One with an owner is that owner's to remove.
            let _ = delete(&mut netlink, &name);
        }
    }
    Ok(())
}

/// The chain of another tool that drops whatever is forwarded and not expressly accepted: its table and its name.
pub(super) fn who_drops_forwarded() -> Result<Option<(String, String)>, Errno> {
    let mut netlink = Netlink::netfilter()?;
    let mut found = None;
    netlink.list(&Message::new(GET_CHAIN, 0, &head(0)), |body| {
        found = found.take().or_else(|| dropping_forward(body));
    })?;
    Ok(found)
}

fn dropping_forward(body: &[u8]) -> Option<(String, String)> {
    let family = *body.first()?;
    let attributes = body.get(4..)?;
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(*bytes.first_chunk::<4>()?));
    let hook = find(find(attributes, CHAIN_HOOK)?, HOOK_NUMBER).and_then(number)?;
    let policy = find(attributes, CHAIN_POLICY).and_then(number)?;
    let is_meant = [FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6].contains(&family);
    if !is_meant || hook != Hook::Forward as u32 || policy != DROP {
        return None;
    }
    let family = match family {
        FAMILY_IPV4 => "ip",
        FAMILY_IPV6 => "ip6",
        _ => "inet",
    };
    let table = name_in(body, CHAIN_TABLE)?;
    Some((format!("{family} {table}"), name_in(body, CHAIN_NAME)?))
}

fn name_in(body: &[u8], attribute: u16) -> Option<String> {
    let bytes = find(body.get(4..)?, attribute)?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn delete(netlink: &mut Netlink, name: &str) -> Result<(), Errno> {
    let message =
        Message::new(DELETE_TABLE, 0, &head(FAMILY_INET)).with(TABLE_NAME, &terminated(name));
    netlink.ask_together(batch(vec![message]), |message| {
        message.kind() == DELETE_TABLE
    })
}

/// The table with all its chains and rules.
fn table(
    name: &str,
    interface: u32,
    addresses: &[IpAddr],
    host: Option<IpAddr>,
    flags: u32,
) -> Vec<Message> {
    let new = |kind, flags| Message::new(kind, CREATE | flags, &head(FAMILY_INET));
    let chain = |chain: &str, kind: &str, hook: Hook, priority: i32| {
        let hook = Attributes::new()
            .with(HOOK_NUMBER, &(hook as u32).to_be_bytes())
            .with(HOOK_PRIORITY, &priority.to_be_bytes());
        new(NEW_CHAIN, EXCLUSIVE)
            .with(CHAIN_TABLE, &terminated(name))
            .with(CHAIN_NAME, &terminated(chain))
            .with_nested(CHAIN_HOOK, &hook)
            .with(CHAIN_TYPE, &terminated(kind))
    };
    let rule = |chain: &str, matches: &[Match<'_>], verdict: Attributes| {
        let expressions = matches.iter().flat_map(Match::expressions).chain([verdict]);
        let list = expressions.fold(Attributes::new(), |list, one| {
            list.with_nested(LIST_ELEMENT, &one)
        });
        new(NEW_RULE, APPEND)
            .with(RULE_TABLE, &terminated(name))
            .with(RULE_CHAIN, &terminated(chain))
            .with_nested(RULE_EXPRESSIONS, &list)
    };
    let mut messages = vec![
        new(NEW_TABLE, EXCLUSIVE)
            .with(TABLE_NAME, &terminated(name))
            .with(TABLE_FLAGS, &flags.to_be_bytes()),
        chain("input", "filter", Hook::Input, 0),
        chain("forward", "filter", Hook::Forward, 0),
        chain("leave", "nat", Hook::Leave, 100),
        rule(
            "forward",
            &[Match::To(interface), Match::Unasked],
            verdict(DROP),
        ),
    ];
    if let Some(host) = &host {
        let wanted = [Match::From(interface), Match::Destination(host)];
        messages.push(rule("input", &wanted, verdict(ACCEPT)));
    }
    messages.push(rule("input", &[Match::From(interface)], verdict(DROP)));
    for address in addresses {
        let spoofed = [Match::From(interface), Match::OtherSource(address)];
        messages.push(rule("forward", &spoofed, verdict(DROP)));
        let masquerade = expression("masq", &Attributes::new());
        messages.push(rule("leave", &[Match::Source(address)], masquerade));
    }
    messages
}

impl Match<'_> {
    fn expressions(&self) -> Vec<Attributes> {
        const NETWORK_HEADER: u32 = 1;
        const META_INTERFACE_IN: u32 = 4;
        const META_INTERFACE_OUT: u32 = 5;
        const META_FAMILY: u32 = 15;
        const CONNECTION_DIRECTION: u32 = 1;
        const EQUAL: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        let meta = |key: u32| {
            let data = Attributes::new()
                .with(1, &REGISTER.to_be_bytes())
                .with(2, &key.to_be_bytes());
            expression("meta", &data)
        };
        let end = |is_source, address: &IpAddr, comparison| {
            let (family, offset, length) = match (address, is_source) {
                (IpAddr::V4(_), true) => (FAMILY_IPV4, 12_u32, 4_u32),
                (IpAddr::V4(_), false) => (FAMILY_IPV4, 16, 4),
                (IpAddr::V6(_), true) => (FAMILY_IPV6, 8, 16),
                (IpAddr::V6(_), false) => (FAMILY_IPV6, 24, 16),
            };
            let payload = Attributes::new()
                .with(1, &REGISTER.to_be_bytes())
                .with(2, &NETWORK_HEADER.to_be_bytes())
                .with(3, &offset.to_be_bytes())
                .with(4, &length.to_be_bytes());
            vec![
                meta(META_FAMILY),
                compare(EQUAL, &[family]),
                expression("payload", &payload),
                compare(comparison, &address_bytes(*address)),
            ]
        };
        match self {
            Self::From(index) => vec![
                meta(META_INTERFACE_IN),
                compare(EQUAL, &index.to_ne_bytes()),
            ],
            Self::To(index) => vec![
                meta(META_INTERFACE_OUT),
                compare(EQUAL, &index.to_ne_bytes()),
            ],
            Self::Unasked => {
                let data = Attributes::new()
                    .with(1, &REGISTER.to_be_bytes())
                    .with(2, &CONNECTION_DIRECTION.to_be_bytes());
                // 0 is the direction of who began.
                vec![expression("ct", &data), compare(EQUAL, &[0])]
            }
            Self::Destination(address) => end(false, address, EQUAL),
            Self::Source(address) => end(true, address, EQUAL),
            Self::OtherSource(address) => end(true, address, NOT_EQUAL),
        }
    }
}

fn compare(operation: u32, value: &[u8]) -> Attributes {
    let data = Attributes::new()
        .with(1, &REGISTER.to_be_bytes())
        .with(2, &operation.to_be_bytes())
        .with_nested(3, &Attributes::new().with(DATA_VALUE, value));
    expression("cmp", &data)
}

fn verdict(code: u32) -> Attributes {
    let verdict = Attributes::new().with(1, &code.to_be_bytes());
    let data = Attributes::new()
        .with(1, &VERDICT_REGISTER.to_be_bytes())
        .with_nested(2, &Attributes::new().with_nested(DATA_VERDICT, &verdict));
    expression("immediate", &data)
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new()
        .with(EXPRESSION_NAME, &terminated(name))
        .with_nested(EXPRESSION_DATA, data)
}

/// Between the words that make them one.
fn batch(messages: Vec<Message>) -> Vec<Message> {
    let mut head = [0, 0, 0, 0];
    head[2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
    let mut all = vec![Message::new(BATCH_BEGIN, 0, &head)];
    all.extend(messages);
    all.push(Message::new(BATCH_END, 0, &head));
    all
}

fn head(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::CommandStatus;
    use crate::sys::process::{Namespaces, clone_process, wait_for};

    fn tables() -> Vec<String> {
        let mut names = Vec::new();
        let all = Message::new(GET_TABLE, 0, &head(FAMILY_INET));
        let mut netlink = Netlink::netfilter().expect("a socket");
        netlink
            .list(&all, |body| names.extend(name_in(body, TABLE_NAME)))
            .expect("a list");
        names
    }

    /// In a network namespace of its own; where there can be none, the test is not for this machine.
    fn apart(attempt: impl FnOnce()) {
        match clone_process(Namespaces::NETWORK, || {
            attempt();
            0
        }) {
            Ok(child) => assert_eq!(
                wait_for(child.pid).expect("wait").0,
                CommandStatus::Exited(0)
            ),
            Err(errno) => assert!(
                std::env::var_os("CI").is_none()
                    && std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none(),
                "no network namespace: {errno}"
            ),
        }
    }

    #[test]
    fn a_table_ends_with_its_firewall() {
        let addresses = [
            IpAddr::V4(std::net::Ipv4Addr::new(10, 213, 1, 2)),
            IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ];
        apart(|| {
            for (flags, refused) in [(TABLE_OWNER, Errno::PERM), (0, Errno::EXIST)] {
                let wall =
                    Firewall::raise_with(flags, "test", 1, &addresses, None).expect("a table");
                assert_eq!(tables(), ["rbuild-test"], "{flags}");
                let twice = Firewall::raise_with(flags, "test", 1, &addresses, None);
                assert_eq!(twice.map(drop), Err(refused), "another's is not taken over");
                drop(wall);
                assert_eq!(tables(), [""; 0], "{flags}");
            }
        });
    }

    /// As on kernels that know no owners, after a SIGKILL.
    #[test]
    fn tables_of_networks_that_are_no_more_are_removed() {
        apart(|| {
            for name in ["dead", "alive"] {
                let wall = Firewall::raise_with(0, name, 1, &[], None).expect("a table");
                std::mem::forget(wall);
            }
            let owned = Firewall::raise("owned", 1, &[], None).expect("a table");
            remove_abandoned(|name| name == "alive").expect("a list");
            let mut left = tables();
            left.sort();
            assert_eq!(left, ["rbuild-alive", "rbuild-owned"]);
            drop(owned);
        });
    }

    #[test]
    fn chains_that_drop_what_is_forwarded_are_found() {
        apart(|| {
            assert_eq!(who_drops_forwarded(), Ok(None));
            let _own = Firewall::raise("own", 1, &[], None).expect("a table");
            assert_eq!(who_drops_forwarded(), Ok(None), "ours lets through");
            let table = |kind| Message::new(kind, CREATE, &head(FAMILY_IPV4));
            let hook = Attributes::new()
                .with(HOOK_NUMBER, &(Hook::Forward as u32).to_be_bytes())
                .with(HOOK_PRIORITY, &0_u32.to_be_bytes());
            let messages = vec![
                table(NEW_TABLE).with(TABLE_NAME, b"filter\0"),
                table(NEW_CHAIN)
                    .with(CHAIN_TABLE, b"filter\0")
                    .with(CHAIN_NAME, b"FORWARD\0")
                    .with_nested(CHAIN_HOOK, &hook)
                    .with(CHAIN_POLICY, &DROP.to_be_bytes())
                    .with(CHAIN_TYPE, b"filter\0"),
            ];
            let mut netlink = Netlink::netfilter().expect("a socket");
            netlink
                .ask_together(batch(messages), |message| message.kind() >= NEW_TABLE)
                .expect("a chain");
            let found = who_drops_forwarded().expect("a list");
            assert_eq!(found, Some(("ip filter".into(), "FORWARD".into())));
        });
    }
}
