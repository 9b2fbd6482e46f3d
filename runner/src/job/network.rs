//! Which network a command has.

use serde::{Deserialize, Serialize};

/// Which network a sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network namespace of the caller.
    Host,
    /// The one of a [`PrivateNetwork`](crate::PrivateNetwork), given with the job.
    Private,
    /// A new one with only a loopback interface that is up.
    None,
}

/// Asks for a network that only commands which are given it are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkJob {
    /// TCP ports of the host that lead inside: on the host, and inside.
    pub ports: Vec<(u16, u16)>,
    /// An address whose port 53 leads to the host's own resolver, for hosts that have one on their loopback only.
    pub dns_forward: Option<String>,
}
