//! Which network a command has.

use serde::{Deserialize, Serialize};

/// Which network a sandbox has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network namespace of the caller.
    Host,
    /// The one of a [`PrivateNetwork`](crate::PrivateNetwork), given with the job.
    Private,
    /// A new one with only a loopback interface that is up.
    #[default]
    None,
}

/// Asks for a network that only commands which are given it are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkJob {
    /// What names of interfaces and tables on the host are made from: at most 13 letters, digits and dashes, and no other live
    /// network's.
    pub name: String,
    /// TCP ports of the host that lead inside: on the host, and inside.
    pub ports: Vec<(u16, u16)>,
    /// This machine is reached by [`NetworkJob::HOST`]: whatever listens on all of its addresses, and with pasta also what
    /// listens on its loopback.
    pub leads_to_host: bool,
    /// An address whose port 53 leads to the host's own resolver, for hosts that have one on their loopback only.
    pub dns_forward: Option<String>,
}

impl NetworkJob {
    /// The address that stands for this machine, where it may be reached at all.
    pub const HOST: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 2);
}
