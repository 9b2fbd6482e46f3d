//! The private network of a build: brought up once, for all its `RUN` steps.

use std::sync::{Arc, OnceLock};

use rbuild_runner::job::NetworkJob;
use rbuild_runner::{PrivateNetwork, Spawner};

use super::resolver;

/// Brought up when the first step asks for it. Several may ask at once: one brings it up, the others wait.
#[derive(Debug, Default)]
pub(crate) struct SharedNetwork(OnceLock<Option<Arc<PrivateNetwork>>>);

impl SharedNetwork {
    /// The network; none where there can be none, of which `tell` hears once. Blocks.
    pub(crate) fn get(
        &self,
        spawner: &Spawner,
        resolv_conf: &[u8],
        tell: impl FnOnce(String),
    ) -> Option<Arc<PrivateNetwork>> {
        let network = self.0.get_or_init(|| {
            let job = NetworkJob {
                dns_forward: resolver::inside(resolv_conf).forward.map(str::to_owned),
                ..NetworkJob::default()
            };
            match spawner.open_network(job) {
                Ok(network) => Some(Arc::new(network)),
                Err(error) => {
                    let mut text =
                        format!("RUN steps have no network but their own loopback: {error}");
                    if let Some(help) = &error.help {
                        text.extend(["; ", help]);
                    }
                    tell(text);
                    None
                }
            }
        });
        network.clone()
    }
}
