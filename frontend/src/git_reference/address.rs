//! Web addresses as far as git references need them: taken apart, checked, and written in their one normal form.
//!
//! Strict where the reference is: a broken `%` escape, a port that is no number, or a character that no host has make a
//! text something else than an address. Where an address is valid but not written as RFC 3986 has it (`é`, a blank), it
//! is percent-encoded for git.

use super::Query;

/// An address without query and fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Path, decoded.
    pub(super) path: Vec<u8>,
    /// All of it, as git gets it.
    pub(super) text: String,
}

/// Takes a text apart; none if it is no address. `scheme` stands in front of the rest, or is what a text without one has.
pub(super) fn parse(scheme: &str, text: &str) -> Option<(Address, Query, String)> {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let fragment = lossy(&decode(fragment, Part::Any)?);
    if before.bytes().any(|byte| byte.is_ascii_control()) {
        return None;
    }
    let (rest, query) = before.split_once('?').unwrap_or((before, ""));
    // A lone `?` at the end belongs to the address.
    let has_empty_query = before.ends_with('?') && before.matches('?').count() == 1;
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let authority = normal_authority(scheme, authority)?;
    let decoded = decode(path, Part::Any)?;
    let path = if is_encoded(path) {
        path.to_owned()
    } else {
        encode(&decoded, PATH)
    };
    let slashes = if authority.is_empty() && path.is_empty() {
        ""
    } else {
        "//"
    };
    let mark = if has_empty_query { "?" } else { "" };
    let address = Address {
        path: decoded,
        text: format!("{scheme}:{slashes}{authority}{path}{mark}"),
    };
    Some((address, split_query(query).0, fragment))
}

/// Names and values of a query, and whether all of it could be read; what can't is left out.
pub(super) fn split_query(query: &str) -> (Query, bool) {
    let decode = |text: &str| Some(lossy(&decode(&text.replace('+', " "), Part::Any)?));
    let mut pairs = Query::new();
    let mut is_whole = true;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (pair.contains(';'), decode(key), decode(value)) {
            (false, Some(key), Some(value)) => pairs.push((key, value)),
            _ => is_whole = false,
        }
    }
    (pairs, is_whole)
}

/// `user:password@host:port` in its normal form; none if it is not valid.
fn normal_authority(scheme: &str, authority: &str) -> Option<String> {
    let Some((user, host)) = authority.rsplit_once('@') else {
        return normal_host(scheme, authority);
    };
    let host = normal_host(scheme, host)?;
    let is_user_byte = |byte: u8| byte.is_ascii_alphanumeric() || USER_INFO.contains(&byte);
    if !user.bytes().all(is_user_byte) {
        return None;
    }
    let part = |text| Some(encode(&decode(text, Part::Any)?, USER));
    let user = match user.split_once(':') {
        Some((user, password)) => format!("{}:{}", part(user)?, part(password)?),
        None => part(user)?,
    };
    Some(format!("{user}@{host}"))
}

fn normal_host(scheme: &str, host: &str) -> Option<String> {
    let (name, port) = match (host.find('['), host.rfind(']')) {
        (Some(0), Some(end)) => {
            let address = &host[1..end];
            let address = address
                .split_once("%25")
                .map_or(address, |(address, _)| address);
            address.parse::<std::net::Ipv6Addr>().ok()?;
            host.split_at(end + 1)
        }
        (Some(_), _) => return None,
        (None, _) => {
            let colon = host.rfind(':');
            if matches!(scheme, "http" | "https") && host.find(':') != colon {
                return None;
            }
            host.split_at(colon.unwrap_or(host.len()))
        }
    };
    let number = port.strip_prefix(':').unwrap_or(port);
    if !number.bytes().all(|byte| byte.is_ascii_digit())
        || number.len() == port.len() && !port.is_empty()
    {
        return None;
    }
    let decoded = decode(name, Part::Host)?;
    Some(format!("{}{port}", encode(&decoded, HOST)))
}

/// What is being decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Only characters that a host may have, and escapes only where they are needed.
    Host,
    Any,
}

/// Resolves `%41`; none for what is no escape.
fn decode(text: &str, part: Part) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if part == Part::Host && byte.is_ascii() && !is_unescaped(byte, HOST) {
                return None;
            }
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = u8::try_from(digit()? * 16 + digit()?).ok()?;
        if part == Part::Host && value.is_ascii() && value != b'%' {
            return None;
        }
        decoded.push(value);
    }
    Some(decoded)
}

/// Besides letters, digits and `-._~`, what stands for itself in user information, hosts and paths.
const USER_INFO: &[u8] = b"-._:~!$&'()*+,;=%@";
const USER: &[u8] = b"$&+,;=";
const HOST: &[u8] = b"!$&'()*+,;=:[]<>\"";
const PATH: &[u8] = b"$&+,/:;=@";

fn is_unescaped(byte: u8, others: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || others.contains(&byte)
}

/// Whether a path is written as it should be already.
fn is_encoded(path: &str) -> bool {
    path.bytes()
        .all(|byte| is_unescaped(byte, PATH) || b"!'()*[]%".contains(&byte))
}

fn encode(bytes: &[u8], others: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_unescaped(byte, others) {
            text.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
