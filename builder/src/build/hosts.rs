//! `/etc/hosts` of commands. Pure.

use rbuild_runner::job::{Network, NetworkJob};

use crate::options::HOST_GATEWAY;

/// Whether one of the names is to lead to this machine.
pub(crate) fn lead_to_host(extra: &[(String, String)]) -> bool {
    extra.iter().any(|(_, address)| address == HOST_GATEWAY)
}

/// The file, for a command with this host name in this kind of network.
pub(crate) fn text(hostname: &str, extra: &[(String, String)], network: Network) -> Vec<u8> {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let host = match network {
        Network::Private => NetworkJob::HOST.to_string(),
        // There it is the loopback; without a network nothing is anywhere.
        Network::Host | Network::None => "127.0.0.1".to_owned(),
    };
    for (name, address) in extra {
        let address = if address == HOST_GATEWAY {
            &host
        } else {
            address
        };
        text.extend([address, "\t", name, "\n"]);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_name_leads_where_the_host_is() {
        let extra = [
            ("a".to_owned(), "192.0.2.1".to_owned()),
            ("host".to_owned(), HOST_GATEWAY.to_owned()),
        ];
        assert!(lead_to_host(&extra));
        assert!(!lead_to_host(&extra[..1]));
        for (network, address) in [
            (Network::Private, "169.254.1.2"),
            (Network::Host, "127.0.0.1"),
            (Network::None, "127.0.0.1"),
        ] {
            let text = String::from_utf8(text("box", &extra, network)).unwrap();
            let added = text.split_once("ip6-loopback\n").unwrap().1;
            assert_eq!(added, format!("192.0.2.1\ta\n{address}\thost\n"));
        }
    }
}
