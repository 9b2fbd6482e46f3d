//! The private networks of a build's `RUN` steps: one for each step that runs at a time, so that what two steps listen on never
//! collides, used again by the steps that follow.

use std::sync::{Arc, Mutex, PoisonError};

use rbuild_runner::job::NetworkJob;
use rbuild_runner::{JobErrorKind, PrivateNetwork, Spawner};

use super::resolver;

/// How much of the lease's name is in a network's: names of interfaces are short.
const NAME_LENGTH: usize = 10;

/// Those that there are.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    /// Held while one is made: who comes meanwhile waits, and takes it if it was made ahead.
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Those that no step is in, and how many were made.
    Possible {
        free: Vec<PrivateNetwork>,
        made: usize,
    },
    /// There can be none.
    Impossible,
}

impl Default for State {
    fn default() -> Self {
        Self::Possible {
            free: Vec::new(),
            made: 0,
        }
    }
}

/// How one is made.
pub(crate) struct Recipe<'a> {
    pub(crate) spawner: &'a Spawner,
    /// The host's `/etc/resolv.conf`.
    pub(crate) resolv_conf: &'a [u8],
    /// Steps may reach this machine by [`NetworkJob::HOST`].
    pub(crate) leads_to_host: bool,
    /// Name of the build's lease.
    pub(crate) name: &'a str,
}

/// A network while a step is in it.
#[derive(Debug)]
pub(crate) struct LentNetwork {
    /// There until it is given back.
    network: Option<PrivateNetwork>,
    networks: Arc<Networks>,
    /// It may be used again.
    is_clean: bool,
}

impl LentNetwork {
    /// The network.
    pub(crate) fn get(&self) -> Option<&PrivateNetwork> {
        self.network.as_ref()
    }

    /// The step that is in it may change it, so it is not used again.
    pub(crate) fn spoil(&mut self) {
        self.is_clean = false;
    }
}

impl Drop for LentNetwork {
    fn drop(&mut self) {
        if let Some(network) = self.network.take().filter(|_| self.is_clean)
            && let State::Possible { free, .. } = &mut *self.networks.lock()
        {
            free.push(network);
        }
    }
}

impl Networks {
    /// A network for one step; none where there can be none, of which `tell` hears once. Blocks.
    pub(crate) fn take(
        self: &Arc<Self>,
        recipe: &Recipe<'_>,
        tell: impl FnOnce(String),
    ) -> Option<LentNetwork> {
        let network = {
            let mut state = self.lock();
            let State::Possible { free, made } = &mut *state else {
                return None;
            };
            match free.pop() {
                Some(network) => Ok(network),
                None => recipe.make(made),
            }
            .inspect_err(|_| *state = State::Impossible)
        };
        let network = network.map_err(|why| why.map(tell)).ok()?;
        Some(LentNetwork {
            network: Some(network),
            networks: Arc::clone(self),
            is_clean: true,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lease's network is named by.
pub(crate) fn name(lease: &str, number: usize) -> String {
    let short = lease.get(..NAME_LENGTH).unwrap_or(lease);
    format!("{short}-{number}")
}

impl Recipe<'_> {
    /// Makes one; else why there can be none, if that is about networks.
    fn make(&self, made: &mut usize) -> Result<PrivateNetwork, Option<String>> {
        *made += 1;
        let job = NetworkJob {
            name: name(self.name, *made),
            dns_forward: resolver::inside(self.resolv_conf)
                .forward
                .map(str::to_owned),
            leads_to_host: self.leads_to_host,
            ports: Vec::new(),
        };
        self.spawner.open_network(job).map_err(|error| {
            // No job at all can be done: the first step says so itself.
            if error.kind == JobErrorKind::MissingPrivilege {
                return None;
            }
            let mut text = format!("RUN steps have no network but their own loopback: {error}");
            for cause in error.causes() {
                text.extend([": ", cause]);
            }
            if let Some(help) = &error.help {
                text.extend(["; ", help]);
            }
            Some(text)
        })
    }
}
