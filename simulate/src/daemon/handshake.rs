//! The slots' sockets as the daemon reaches them.

use std::sync::{Mutex, PoisonError};

use runner_controller::pool::SlotId;
use runner_controller::world::{Handshake, JitConfig};
use tokio::sync::oneshot;

use super::access::Access;
use crate::mutation::Mutation;
use crate::sockets::SocketCall;
use crate::unavailable::Unavailable;

/// The slots' sockets.
pub(super) struct Sockets {
    access: Access,
    /// The config that was delivered last.
    last_config: Mutex<Option<String>>,
}

impl Sockets {
    pub(super) fn new(access: Access) -> Self {
        Self {
            access,
            last_config: Mutex::default(),
        }
    }

    async fn call(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<(), Unavailable>>) -> SocketCall,
    ) -> Result<(), Unavailable> {
        let incarnation = self.access.incarnation;
        let answered = self.access.world.ask(|world, answer| {
            (world.sockets).call(incarnation, call(answer), &mut world.schedule);
        });
        let closed = Unavailable("the sockets are closed");
        answered.await.unwrap_or(Err(closed))
    }

    /// Returns the slot and the config that are really used.
    fn mutate(&self, slot: &SlotId, config: &str) -> (SlotId, String) {
        let (mut slot, mut config) = (slot.clone(), config.to_owned());
        let mut last = (self.last_config.lock()).unwrap_or_else(PoisonError::into_inner);
        let before = last.replace(config.clone());
        if self.access.has(Mutation::ConfigReused) {
            config = before.unwrap_or(config);
        }
        if self.access.has(Mutation::ConfigChanged) {
            config.push('x');
        }
        if self.access.has(Mutation::ConfigToOtherSlot) {
            let other = (self.access.world).with(|world| world.sockets.waiting_beside(&slot));
            slot = other.unwrap_or(slot);
        }
        (slot, config)
    }
}

impl Handshake for Sockets {
    type Error = Unavailable;

    async fn prepare(&self, slot: &SlotId) -> Result<(), Unavailable> {
        let slot = slot.clone();
        self.call(|answer| SocketCall::Prepare(slot, answer)).await
    }

    async fn answer(&self, slot: &SlotId, config: JitConfig) -> Result<(), Unavailable> {
        let (slot, config) = self.mutate(slot, config.expose());
        self.call(|answer| SocketCall::Deliver(slot, config, answer))
            .await
    }
}
