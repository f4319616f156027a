//! Keeps the instances of one version of a stage. The instance that was used last is used next: its memory is warm, and
//! its state (such as a sticky partition) continues.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Fault;
use crate::failure_detector::Health;
use crate::host_imports::HostSide;
use crate::instance::{Instance, StartError};
use crate::plugin::Plugin;

/// Holds configured instances of a plug-in.
pub(crate) struct Pool {
    plugin: Plugin,
    config: Arc<str>,
    side: Arc<HostSide>,
    state: Mutex<State>,
    idle_max: usize,
}

#[derive(Default)]
struct State {
    idle: Vec<Instance>,
    /// The instances that are lent now, and the most that ever were at once: of this version and those before.
    leased: usize,
    leased_peak: usize,
}

impl Pool {
    /// Creates an empty pool, and registers it with the engine, which may ask it to make room.
    pub(crate) fn new(plugin: Plugin, config: Arc<str>, side: Arc<HostSide>) -> Arc<Pool> {
        // More instances than threads are never used.
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let engine = plugin.engine().clone();
        let pool = Arc::new(Pool { plugin, config, side, state: Mutex::default(), idle_max: threads * 2 });
        engine.register(&pool);
        pool
    }

    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    pub(crate) fn health(&self) -> &Health {
        self.plugin.health()
    }

    /// Lends an idle instance, or a new one.
    pub(crate) fn lease(&self) -> Result<Lease<'_>, Fault> {
        self.lend(|state| state.idle.pop())
    }

    /// Lends a new instance.
    pub(crate) fn lease_fresh(&self) -> Result<Lease<'_>, Fault> {
        self.lend(|_| None)
    }

    fn lend(&self, choose: impl FnOnce(&mut State) -> Option<Instance>) -> Result<Lease<'_>, Fault> {
        // Not under the lock: creating an instance takes some microseconds.
        let chosen = {
            let mut state = self.state.lock();
            state.leased += 1;
            state.leased_peak = state.leased_peak.max(state.leased);
            choose(&mut state)
        };
        let mut lease = Lease { pool: self, instance: chosen, waited: None };
        match &lease.instance {
            Some(instance) => self.plugin.engine().no_longer_waits(instance.memory_bytes()),
            None => {
                let begun = Instant::now();
                lease.instance = Some(self.start()?);
                lease.waited = Some(begun.elapsed());
            }
        }
        Ok(lease)
    }

    /// Lends the first instances at once to `probe`, so that later calls need not create them. The version after this
    /// one gets at least as many.
    pub(crate) fn warm(
        &self,
        instances: usize,
        mut probe: impl FnMut(&mut Instance) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut leases = Vec::new();
        for _ in 0..instances.min(self.idle_max) {
            let mut lease = self.lease()?;
            probe(lease.instance())?;
            leases.push(lease);
        }
        leases.into_iter().for_each(|lease| lease.end(&Ok(())));
        Ok(())
    }

    /// Keeps an instance for the next call, if there is room for it.
    fn keep(&self, instance: Instance) {
        let (engine, bytes) = (self.plugin.engine(), instance.memory_bytes());
        let mut state = self.state.lock();
        if state.idle.len() < self.idle_max && engine.may_wait(bytes) {
            state.idle.push(instance);
        } else {
            // Not under the lock: it returns the memory to the system.
            drop(state);
            drop(instance);
        }
    }

    /// Returns the most instances that were ever lent at once, at least one.
    pub(crate) fn leased_peak(&self) -> usize {
        self.state.lock().leased_peak.max(1)
    }

    /// Drops the idle instances, to make room for others.
    pub(crate) fn shrink(&self) {
        let idle = std::mem::take(&mut self.state.lock().idle);
        let bytes = idle.iter().map(Instance::memory_bytes).sum();
        self.plugin.engine().no_longer_waits(bytes);
        drop(idle);
    }

    /// Creates and configures an instance.
    fn start(&self) -> Result<Instance, Fault> {
        let started = self.plugin.instantiate(Arc::clone(&self.side));
        let mut instance = started.map_err(|error| match error {
            StartError::Fault(fault) => fault,
            // Its types were checked when it was loaded, so this does not happen.
            StartError::Contract(reason) => Fault::Trap { call: "instantiate", reason },
        })?;
        instance.configure(&self.config)?;
        Ok(instance)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shrink();
    }
}

/// Holds an instance that is lent. Dropping the lease drops the instance.
pub(crate) struct Lease<'p> {
    pool: &'p Pool,
    instance: Option<Instance>,
    /// How long it took to create the instance; `None` if it was idle.
    waited: Option<Duration>,
}

impl Lease<'_> {
    pub(crate) fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("a lease holds its instance until it ends")
    }

    /// Returns how long the caller waited until the instance was created.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Ends the lease, and keeps the instance unless the guest misbehaved.
    pub(crate) fn end<R>(mut self, outcome: &Result<R, Fault>) {
        let is_good = outcome.as_ref().err().is_none_or(|fault| !fault.is_trap());
        if let Some(instance) = self.instance.take().filter(|_| is_good) {
            self.pool.keep(instance);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.state.lock().leased -= 1;
    }
}
