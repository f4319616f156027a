//! The engine: one per process, shared by every plug-in. It holds the compiler's settings, the pools
//! that instances live in, the ticker of the deadlines and the cache of compiled code.
//!
//! There are two kinds of code, see [`Trust`], and wasmtime compiles and runs both kinds of one engine alike: so
//! each has a [`Runtime`] of its own.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::{InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::compile::Compiler;
use crate::error::LoadError;
use crate::host_imports;
use crate::instance::HostState;
use crate::limits::{Limits, MEMORY_RESERVATION_BYTES};
use crate::plugin::{Digest, Plugin};
use crate::pool::Pool;
use crate::scan::Scanned;
use crate::ticker::{Running, Ticker};

/// Core instances that one component may need: the module itself and what wit-component puts around
/// it to connect imports that need the module's memory.
const CORE_INSTANCES_PER_COMPONENT: u32 = 8;

/// Tables that one component may need: the module's own, and that of the connecting module.
const TABLES_PER_COMPONENT: u32 = 4;

/// The bookkeeping of one instance, in bytes: bounded by the functions and globals it may have.
const INSTANCE_SIZE_BYTES: usize = 1 << 20;

/// Bytes of a memory that are wiped instead of given back to the system when an instance ends.
const MEMORY_KEPT_BYTES: usize = 256 << 10;

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where compiled code is kept between runs; `None` compiles again in every process.
    pub cache_dir: Option<PathBuf>,
    /// What each plug-in may use.
    pub limits: Limits,
    /// Where plug-ins are compiled.
    pub compiler: Compiler,
    /// The most instances that may exist at once, over all plug-ins (256), and as many over those of the program's
    /// own. Each sets aside address space, not memory.
    pub instances: u32,
    /// The most linear memory, in bytes, that instances may have together which wait for a call (256 MiB).
    /// One that does not fit is thrown away, and made again when it is wanted.
    pub idle_memory_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            cache_dir: None,
            limits: Limits::default(),
            compiler: Compiler::InProcess,
            instances: 256,
            idle_memory_bytes: 256 << 20,
        }
    }
}

/// Whose code a plug-in is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's: it is stopped when it passes its deadline, for which its code looks at a clock at the head of every
    /// function and at every turn of a loop.
    Foreign,
    /// The program's own: as much work as its input is large, by whoever is trusted with the program itself. It has
    /// every limit but the deadline, and takes down to half the time.
    Own,
}

/// The engine cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the sandbox: {0}")]
pub struct EngineError(String);

/// A handle on the engine; clones are the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    foreign: Runtime,
    /// Made when it is first wanted.
    own: OnceLock<Runtime>,
    ticker: Ticker,
    scanned: Scanned,
    /// Every pool of instances, so that those who wait can make room for others.
    pools: Mutex<Vec<Weak<Pool>>>,
    /// The memory of the instances that wait.
    idle_memory_bytes: AtomicUsize,
    config: EngineConfig,
}

/// Where the code of one [`Trust`] is compiled, kept and run.
pub(crate) struct Runtime {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<HostState>,
    pub(crate) cache: Option<Cache>,
}

impl Runtime {
    fn new(config: &EngineConfig, trust: Trust) -> Result<Runtime, EngineError> {
        let failed = |error: wasmtime::Error| EngineError(format!("{error:#}"));
        let mut settings = compiler_settings(&config.limits, trust);
        settings.allocation_strategy(pool_settings(config));
        let wasmtime = wasmtime::Engine::new(&settings).map_err(failed)?;
        let mut linker = Linker::new(&wasmtime);
        host_imports::define(&mut linker).map_err(failed)?;
        let cache = match &config.cache_dir {
            None => None,
            Some(folder) => Some(
                Cache::open(folder, &wasmtime)
                    .map_err(|error| EngineError(format!("cache folder {}: {error}", folder.display())))?,
            ),
        };
        Ok(Runtime { wasmtime, linker, cache })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine: 0.3 ms, and address space for its instances.
    ///
    /// # Errors
    /// When the system gives no address space or thread, or the cache folder cannot be made.
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        let foreign = Runtime::new(&config, Trust::Foreign)?;
        let weak = foreign.wasmtime.weak();
        let ticker = Ticker::start(move || {
            if let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
            }
        })
        .map_err(|error| EngineError(format!("no thread for the ticker: {error}")))?;
        let (pools, idle_memory_bytes) = (Mutex::default(), AtomicUsize::default());
        let (own, scanned) = (OnceLock::new(), Scanned::default());
        let shared = Shared { foreign, own, ticker, scanned, pools, idle_memory_bytes, config };
        Ok(Engine(Arc::new(shared)))
    }

    /// Loads a plug-in: scan, compile or take from the cache, instantiate, describe.
    ///
    /// # Errors
    /// [`LoadError`]: why it is no plug-in that this host runs. Nothing of it is left.
    pub fn load(&self, bytes: &[u8]) -> Result<Plugin, LoadError> {
        Plugin::load(self, bytes, Trust::Foreign)
    }

    /// Loads a plug-in that is part of the program, see [`Trust::Own`]: never bytes from elsewhere.
    ///
    /// # Errors
    /// As [`Engine::load`], and when the system gives no address space for such plug-ins.
    pub fn load_own(&self, bytes: &'static [u8]) -> Result<Plugin, LoadError> {
        Plugin::load(self, bytes, Trust::Own)
    }

    /// Loads a plug-in that is known by its digest, as from a place that others can write to.
    ///
    /// # Errors
    /// [`LoadError::Digest`] when the bytes are others; else as [`Engine::load`].
    pub fn load_exactly(&self, bytes: &[u8], digest: &Digest) -> Result<Plugin, LoadError> {
        let have = Digest::of(bytes);
        if have != *digest {
            return Err(LoadError::Digest { have: have.to_string(), want: digest.to_string() });
        }
        self.load(bytes)
    }

    /// What each plug-in may use.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// The most instances that may exist at once.
    pub(crate) fn instances_max(&self) -> u32 {
        self.0.config.instances
    }

    pub(crate) fn runtime(&self, trust: Trust) -> Result<&Runtime, EngineError> {
        match trust {
            Trust::Foreign => Ok(&self.0.foreign),
            Trust::Own => match self.0.own.get() {
                Some(own) => Ok(own),
                None => {
                    let own = Runtime::new(&self.0.config, trust)?;
                    // Of two that are made at once, one is address space that is given back.
                    Ok(self.0.own.get_or_init(|| own))
                }
            },
        }
    }

    pub(crate) fn scanned(&self) -> &Scanned {
        &self.0.scanned
    }

    pub(crate) fn compiler(&self) -> &Compiler {
        &self.0.config.compiler
    }

    pub(crate) fn register(&self, pool: &Arc<Pool>) {
        let mut pools = self.0.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Whether an instance with so much memory may wait for its next call; it is counted if so.
    pub(crate) fn may_wait(&self, bytes: usize) -> bool {
        let before = self.0.idle_memory_bytes.fetch_add(bytes, Relaxed);
        let fits = before + bytes <= self.0.config.idle_memory_bytes;
        if !fits {
            self.no_longer_waits(bytes);
        }
        fits
    }

    /// An instance that was counted does not wait any more.
    pub(crate) fn no_longer_waits(&self, bytes: usize) {
        self.0.idle_memory_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Throws away the instances of all stages that wait for a call.
    pub(crate) fn make_room(&self) {
        let pools: Vec<Arc<Pool>> = self.0.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().for_each(|pool| pool.shrink());
    }

    /// Says that guest code is about to run, so that the ticker ticks.
    pub(crate) fn running(&self) -> Running<'_> {
        self.0.ticker.running()
    }
}

/// An engine that only compiles: without the pool, whose address space is more than a child may use.
pub(crate) fn compiler_engine(limits: &Limits, trust: Trust) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&compiler_settings(limits, trust))
}

/// Everything that the compiled code depends on, the same in every process of one build.
fn compiler_settings(limits: &Limits, trust: Trust) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        // On by default, and 3 to 4 times a call's cost.
        .concurrency_support(false)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .cranelift_opt_level(OptLevel::Speed)
        // The same bits on every machine: an answer may be stored.
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(trust == Trust::Foreign)
        .max_wasm_stack(limits.stack_bytes)
        // With 4 GiB of address space and guard pages no access needs a check.
        .memory_reservation(MEMORY_RESERVATION_BYTES as u64)
        .memory_may_move(false)
        .memory_init_cow(true);
    config
}

fn pool_settings(config: &EngineConfig) -> InstanceAllocationStrategy {
    let limits = &config.limits;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.instances)
        .total_core_instances(config.instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(config.instances)
        .total_tables(config.instances.saturating_mul(TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_component_instance_size(INSTANCE_SIZE_BYTES)
        .max_core_instance_size(INSTANCE_SIZE_BYTES)
        .table_elements(limits.table_elements)
        .max_memory_size(limits.memory_bytes)
        .linear_memory_keep_resident(MEMORY_KEPT_BYTES);
    InstanceAllocationStrategy::Pooling(pool)
}
