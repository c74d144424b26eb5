//! systemd as the daemon reaches it.

use std::sync::Arc;

use runner_controller::config::Config;
use runner_controller::pool::{RecordedEnd, Slot, SlotId, UnitObservation};
use runner_controller::world::Machines;
use tokio::sync::oneshot;

use super::access::Access;
use crate::host::BusCall;
use crate::mutation::Mutation;
use crate::unavailable::Unavailable;

/// systemd on the bus.
pub(super) struct Systemd {
    access: Access,
    config: Arc<Config>,
}

impl Systemd {
    pub(super) fn new(access: Access, config: Arc<Config>) -> Self {
        Self { access, config }
    }

    async fn call<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<T, Unavailable>>) -> BusCall,
    ) -> Result<T, Unavailable> {
        let answered = self
            .access
            .world
            .ask(|world, answer| world.host.call(call(answer), &mut world.schedule));
        let closed = Unavailable("the bus connection is closed");
        answered.await.unwrap_or(Err(closed))
    }

    /// Returns the slot behind the last configured one.
    fn extra(&self, slot: &SlotId) -> Option<SlotId> {
        let max = self.config.pool(&slot.pool)?.max_runners;
        Some(SlotId {
            pool: slot.pool.clone(),
            slot: Slot::new(max + 1)?,
        })
    }
}

impl Machines for Systemd {
    type Error = Unavailable;

    async fn start(&self, slot: &SlotId) -> Result<(), Unavailable> {
        if self.access.has(Mutation::StartsDropped) && slot.slot.number() == 1 {
            return Ok(());
        }
        if self.access.has(Mutation::ExtraUnit)
            && let Some(extra) = self.extra(slot)
        {
            self.call(|answer| BusCall::Start(extra, answer)).await?;
        }
        let slot = slot.clone();
        self.call(|answer| BusCall::Start(slot, answer)).await
    }

    async fn stop(&self, slot: &SlotId) -> Result<(), Unavailable> {
        let slot = slot.clone();
        self.call(|answer| BusCall::Stop(slot, answer)).await
    }

    async fn kill(&self, slot: &SlotId) -> Result<(), Unavailable> {
        let slot = slot.clone();
        self.call(|answer| BusCall::Kill(slot, answer)).await
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, Unavailable> {
        if self.access.has(Mutation::Panics) {
            std::panic::panic_any("a mutation");
        }
        self.call(BusCall::Observe).await
    }

    async fn ends(&self) -> Vec<RecordedEnd> {
        if self.access.has(Mutation::EarlierEndsHidden) {
            return Vec::new();
        }
        // Files of root, which are read without systemd.
        self.access.world.with(|world| world.host.ends())
    }
}
