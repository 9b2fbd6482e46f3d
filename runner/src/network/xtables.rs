//! Firewalls of iptables-legacy: whether one drops what is forwarded. nftables does not list them, and the kernel asks both.
//!
//! ```text
//! struct ipt_getinfo       name (32) hooks (4) first rule of each of 5 hooks (5 × 4) last rule of each (5 × 4) rules (4) size (4)
//! struct ipt_get_entries   name (32) size (4), from 40 on the rules, one after the other:
//!   struct ipt_entry       what it matches, … target_offset (2) next_offset (2) … then matches, then the target:
//!   struct xt_entry_target size (2) name (29) revision (1), verdict (4) where the name is empty
//! ```
//!
//! See `linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h` and `netfilter/x_tables.h`. The last rule of a hook
//! is its policy.

use std::fs;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::sys::xtables::{self, Protocol};

/// Longest name of a table, with its NUL.
const NAME: usize = 32;
/// Length of `struct ipt_getinfo`.
const INFO: usize = 84;
/// Where the rules begin in `struct ipt_get_entries`: they are aligned to 8.
const RULES: usize = 40;
/// `NF_INET_FORWARD`
const FORWARD: usize = 2;
/// Tables are larger only with a hundred thousand rules: then it is not looked at.
const LARGEST: usize = 32 << 20;
/// Verdicts are kept as `-verdict - 1`; `NF_DROP` is 0.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
/// The target that drops with words.
const REJECT: &[u8] = b"REJECT";
/// Tables whose chains may drop what is forwarded; `nat` can't.
const TABLES: [&str; 3] = ["filter", "mangle", "security"];

/// How rules of a protocol are laid out.
struct Layout {
    protocol: Protocol,
    /// Who lists the tables there are. Asking for one that is not there would make it.
    list: &'static str,
    program: &'static str,
    /// Length of what a rule matches by itself, addresses and interfaces: all zero is everything.
    addresses: usize,
    /// Where `target_offset` is; `next_offset` follows.
    offsets: usize,
    /// Length of `struct ipt_entry`; matches follow, or the target at once.
    entry: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        protocol: Protocol::Ipv4,
        list: "/proc/self/net/ip_tables_names",
        program: "iptables-legacy",
        addresses: 84,
        offsets: 88,
        entry: 112,
    },
    Layout {
        protocol: Protocol::Ipv6,
        list: "/proc/self/net/ip6_tables_names",
        program: "ip6tables-legacy",
        addresses: 136,
        offsets: 140,
        entry: 168,
    },
];

/// Who drops what is forwarded and not expressly accepted: the program whose it is, and its table. None where nobody does, and
/// where that can't be asked.
pub(super) fn who_drops_forwarded(has_ipv6: bool) -> Option<(&'static str, String)> {
    let [four, six] = &LAYOUTS;
    let layouts = std::iter::once(four).chain(has_ipv6.then_some(six));
    layouts.into_iter().find_map(|layout| {
        let names = fs::read_to_string(layout.list).unwrap_or_default();
        let mut names = names.lines().filter(|name| TABLES.contains(name));
        let table = names.find(|name| is_dropping(layout, name) == Ok(true))?;
        Some((layout.program, table.to_owned()))
    })
}

fn is_dropping(layout: &Layout, table: &str) -> Result<bool, Errno> {
    let family = match layout.protocol {
        Protocol::Ipv4 => AddressFamily::INET,
        Protocol::Ipv6 => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let named = |length: usize| {
        let mut bytes = vec![0; length];
        bytes[..table.len()].copy_from_slice(table.as_bytes());
        bytes
    };
    let mut info = named(INFO);
    xtables::get_info(&socket, layout.protocol, &mut info)?;
    let size = number(&info, INFO - 4).ok_or(Errno::INVAL)?;
    let length = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    if length > LARGEST {
        return Err(Errno::FBIG);
    }
    let mut rules = named(RULES + length);
    rules[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    // Somebody may change the table in between: it is left for what it is then.
    xtables::get_entries(&socket, layout.protocol, &mut rules)?;
    Ok(drops_forwarded(layout, &info, &rules[RULES..]))
}

/// Whether the first rule of the chain FORWARD that is about every packet, its policy in the end, lets none through.
fn drops_forwarded(layout: &Layout, info: &[u8], rules: &[u8]) -> bool {
    let offset = |at: usize| usize::try_from(number(info, at)?).ok();
    let bounds = || {
        Some((
            offset(NAME + 4 + FORWARD * 4)?,
            offset(NAME + 24 + FORWARD * 4)?,
        ))
    };
    let has_hook = number(info, NAME).is_some_and(|hooks| hooks & (1 << FORWARD) != 0);
    let Some((mut at, policy)) = bounds().filter(|_| has_hook) else {
        return false;
    };
    while let Some(rule) = rules.get(at..).filter(|_| at <= policy) {
        match verdict(layout, rule) {
            Some(Verdict::Drop) => return true,
            Some(Verdict::Accept) => return false,
            None => {}
        }
        match half(rule, layout.offsets + 2) {
            Some(next) if next > 0 => at += usize::from(next),
            _ => return false,
        }
    }
    false
}

enum Verdict {
    Drop,
    Accept,
}

/// What a rule says of every packet; none when it is about some, or leads elsewhere.
fn verdict(layout: &Layout, rule: &[u8]) -> Option<Verdict> {
    let is_about_all = rule.get(..layout.addresses)?.iter().all(|byte| *byte == 0);
    let target = usize::from(half(rule, layout.offsets)?);
    if !is_about_all || target != layout.entry {
        return None;
    }
    let name = rule.get(target + 2..target + 31)?;
    let name = name.split(|byte| *byte == 0).next()?;
    if name == REJECT {
        return Some(Verdict::Drop);
    }
    let verdict = number(rule, target + 32)?.cast_signed();
    match (name, verdict) {
        (b"", DROP) => Some(Verdict::Drop),
        (b"", ACCEPT) => Some(Verdict::Accept),
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One rule: its target, its verdict, and whether it is about one address only.
    fn rule(layout: &Layout, target: &[u8], verdict: i32, is_about_one: bool) -> Vec<u8> {
        let length = layout.entry + 40;
        let mut rule = vec![0; length];
        rule[0] = u8::from(is_about_one) * 10;
        let entry = u16::try_from(layout.entry).unwrap();
        rule[layout.offsets..][..2].copy_from_slice(&entry.to_ne_bytes());
        let length = u16::try_from(length).unwrap();
        rule[layout.offsets + 2..][..2].copy_from_slice(&length.to_ne_bytes());
        rule[layout.entry..][..2].copy_from_slice(&40_u16.to_ne_bytes());
        rule[layout.entry + 2..][..target.len()].copy_from_slice(target);
        rule[layout.entry + 32..][..4].copy_from_slice(&verdict.to_ne_bytes());
        rule
    }

    fn info(hooks: u32, first: usize, policy: usize) -> Vec<u8> {
        let mut info = vec![0; INFO];
        info[NAME..][..4].copy_from_slice(&hooks.to_ne_bytes());
        for (at, value) in [(NAME + 4, first), (NAME + 24, policy)] {
            let value = u32::try_from(value).unwrap();
            info[at + FORWARD * 4..][..4].copy_from_slice(&value.to_ne_bytes());
        }
        info
    }

    #[test]
    fn chains_that_let_nothing_through_are_told_from_others() {
        const RETURN: i32 = -5;
        let everything = [
            ("policy drop", vec![(&b""[..], DROP, false)], true),
            ("policy accept", vec![(b"", ACCEPT, false)], false),
            (
                "some are dropped",
                vec![(b"", DROP, true), (b"", ACCEPT, false)],
                false,
            ),
            (
                "some are accepted",
                vec![(b"", ACCEPT, true), (b"", DROP, false)],
                true,
            ),
            (
                "all before the policy",
                vec![(b"", ACCEPT, false), (b"", DROP, false)],
                false,
            ),
            (
                "rejected before it",
                vec![(b"REJECT", 3, false), (b"", ACCEPT, false)],
                true,
            ),
            (
                "counted, and on",
                vec![
                    (b"LOG", 0, false),
                    (b"", RETURN, false),
                    (b"", ACCEPT, false),
                ],
                false,
            ),
            (
                "a chain of one's own",
                vec![(b"", 400, false), (b"", DROP, false)],
                true,
            ),
        ];
        for layout in &LAYOUTS {
            for (name, chain, expected) in &everything {
                // The chain INPUT lies before it.
                let mut rules = rule(layout, b"", DROP, false);
                let first = rules.len();
                for (target, verdict, is_about_one) in chain {
                    rules.extend(rule(layout, target, *verdict, *is_about_one));
                }
                let policy = rules.len() - layout.entry - 40;
                rules.extend(rule(layout, b"", DROP, false));
                let found = |hooks| drops_forwarded(layout, &info(hooks, first, policy), &rules);
                assert_eq!(found(0b01110), *expected, "{name}");
                assert!(!found(0b01010), "{name}: a table without this chain");
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_round_is_nothing() {
        let layout = &LAYOUTS[0];
        let whole = rule(layout, b"", DROP, false);
        for length in 0..whole.len() - 4 {
            let info = info(1 << FORWARD, 0, 0);
            assert!(
                !drops_forwarded(layout, &info, &whole[..length]),
                "{length}"
            );
        }
        let mut round = rule(layout, b"", DROP, true);
        round[layout.offsets + 2..][..2].copy_from_slice(&[0, 0]);
        assert!(!drops_forwarded(
            layout,
            &info(1 << FORWARD, 0, 4000),
            &round
        ));
        assert!(!drops_forwarded(layout, &[0; 40], &whole));
    }
}
