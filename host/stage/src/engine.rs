//! The parts that all plug-ins of a process share: the compiler's settings, the pools of instances, the ticker of the
//! deadlines and the cache of compiled code.
//!
//! There are two kinds of code; see [`Trust`]. Each has its own [`Runtime`], since wasmtime compiles and runs all code
//! of one engine with the same settings.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::{InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::cache::{Cache, Folder};
use crate::checks;
use crate::compile::Compiler;
use crate::error::LoadError;
use crate::host_imports;
use crate::instance::HostState;
use crate::limits::{Limits, MEMORY_RESERVATION_BYTES};
use crate::plugin::{Digest, Plugin};
use crate::pool::Pool;
use crate::scan::Scanned;
use crate::ticker::Ticker;

/// The instances that the compiler itself adds to connect nested components.
const CONNECTING_INSTANCES_MAX: u32 = 16;

/// The memories for each instance, on average: its own, and the page of its checks. Few components have more.
const MEMORIES_PER_INSTANCE: u32 = 3;

/// The memories that one module may have: its own or that of another module, and the page of its checks.
const MEMORIES_PER_MODULE: u32 = 2;

/// The tables that one component may need: the module's own, and that of the connecting module.
const TABLES_PER_COMPONENT: u32 = 4;

/// The bytes of bookkeeping for one instance: bounded by the functions and globals it may have.
const INSTANCE_SIZE_BYTES: usize = 1 << 20;

/// The bytes of a memory that are cleared, instead of returned to the system, when an instance ends.
const MEMORY_KEPT_BYTES: usize = 256 << 10;

/// Configures an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The folder that keeps compiled code between runs. `None` compiles again in every process.
    pub cache_dir: Option<PathBuf>,
    /// The limits of each plug-in.
    pub limits: Limits,
    /// The place where plug-ins are compiled.
    pub compiler: Compiler,
    /// The most instances that may exist at once (256): of foreign plug-ins, and again of the program's own. Each
    /// reserves address space, not memory.
    pub instances: u32,
    /// The most linear memory of all idle instances together, in bytes (256 MiB). An instance that does not fit is
    /// dropped, and created again when it is needed.
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

/// The degree of trust in a plug-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Any code: it is stopped at its deadline. For this, its code writes to a page at every turn of a loop, at the
    /// start of every function that calls another, and before copies and fills.
    Foreign,
    /// Code that is part of the program. It has every limit but the deadline.
    Own,
}

/// Reports that the engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the sandbox: {0}")]
pub struct EngineError(String);

/// Gives access to the engine. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    cache: Option<Arc<Folder>>,
    foreign: Runtime,
    /// Created when it is first used.
    own: OnceLock<Runtime>,
    ticker: Ticker,
    scanned: Scanned,
    /// Every pool of instances, so that idle instances can make room for others.
    pools: Mutex<Vec<Weak<Pool>>>,
    /// The memory of all idle instances.
    idle_memory_bytes: AtomicUsize,
    config: EngineConfig,
}

/// Compiles, keeps and runs the code of one [`Trust`].
pub(crate) struct Runtime {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<HostState>,
    pub(crate) cache: Option<Cache>,
}

impl Runtime {
    fn new(config: &EngineConfig, cache: Option<&Arc<Folder>>, trust: Trust) -> Result<Runtime, EngineError> {
        let failed = |error: wasmtime::Error| EngineError(format!("{error:#}"));
        let mut settings = compiler_settings(&config.limits);
        settings.allocation_strategy(pool_settings(config));
        let wasmtime = wasmtime::Engine::new(&settings).map_err(failed)?;
        let mut linker = Linker::new(&wasmtime);
        host_imports::define(&mut linker).map_err(failed)?;
        let cache = cache.map(|folder| Cache::new(Arc::clone(folder), &wasmtime, trust));
        Ok(Runtime { wasmtime, linker, cache })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine: 0.3 ms, and address space for its instances. A cache folder that cannot be used is logged and
    /// left out.
    ///
    /// # Errors
    /// The system has no address space or thread left.
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        let cache = config.cache_dir.as_deref().and_then(Folder::open);
        let foreign = Runtime::new(&config, cache.as_ref(), Trust::Foreign)?;
        let ticker = Ticker::start().map_err(|error| EngineError(format!("no thread for the ticker: {error}")))?;
        let (pools, idle_memory_bytes) = (Mutex::default(), AtomicUsize::default());
        let (own, scanned) = (OnceLock::new(), Scanned::default());
        let shared = Shared { cache, foreign, own, ticker, scanned, pools, idle_memory_bytes, config };
        Ok(Engine(Arc::new(shared)))
    }

    /// Loads a plug-in: scan, compile or take from the cache, instantiate, describe.
    ///
    /// # Errors
    /// [`LoadError`] when it cannot be loaded. Nothing of it is kept.
    pub fn load(&self, bytes: &[u8]) -> Result<Plugin, LoadError> {
        Plugin::load(self, bytes, Trust::Foreign)
    }

    /// Loads a plug-in that is part of the program, see [`Trust::Own`]. Never pass bytes from elsewhere.
    ///
    /// # Errors
    /// As [`Engine::load`], and when the system has no address space for such plug-ins.
    pub fn load_own(&self, bytes: &'static [u8]) -> Result<Plugin, LoadError> {
        Plugin::load(self, bytes, Trust::Own)
    }

    /// Loads a plug-in from a place that others can write to, and checks its digest.
    ///
    /// # Errors
    /// [`LoadError::Digest`] when the bytes have another digest; else as [`Engine::load`].
    pub fn load_exactly(&self, bytes: &[u8], digest: &Digest) -> Result<Plugin, LoadError> {
        let have = Digest::of(bytes);
        if have != *digest {
            return Err(LoadError::Digest { have: have.to_string(), want: digest.to_string() });
        }
        self.load(bytes)
    }

    /// Returns the limits of each plug-in.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// Returns the most instances that may exist at once.
    pub(crate) fn instances_max(&self) -> u32 {
        self.0.config.instances
    }

    pub(crate) fn runtime(&self, trust: Trust) -> Result<&Runtime, EngineError> {
        match trust {
            Trust::Foreign => Ok(&self.0.foreign),
            Trust::Own => match self.0.own.get() {
                Some(own) => Ok(own),
                None => {
                    let own = Runtime::new(&self.0.config, self.0.cache.as_ref(), trust)?;
                    // If two are created at once, one of them is dropped.
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

    /// Returns whether an idle instance with this memory may be kept, and counts its memory if so.
    pub(crate) fn may_wait(&self, bytes: usize) -> bool {
        let before = self.0.idle_memory_bytes.fetch_add(bytes, Relaxed);
        let fits = before + bytes <= self.0.config.idle_memory_bytes;
        if !fits {
            self.no_longer_waits(bytes);
        }
        fits
    }

    /// Stops counting the memory of an idle instance.
    pub(crate) fn no_longer_waits(&self, bytes: usize) {
        self.0.idle_memory_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Drops the idle instances of all stages.
    pub(crate) fn make_room(&self) {
        let pools: Vec<Arc<Pool>> = self.0.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().for_each(|pool| pool.shrink());
    }

    /// Returns the ticker of the deadlines.
    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0.ticker
    }
}

/// Creates an engine that only compiles: without the pool, whose address space is more than a child process may use.
pub(crate) fn compiler_engine(limits: &Limits) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(compiler_settings(limits).parallel_compilation(true))
}

/// Returns all settings that the compiled code depends on. They are the same in every process of one build.
fn compiler_settings(limits: &Limits) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        // Stays off, even if a feature turns it on: with it a call of one row takes 1.37 times as long (wasmtime
        // 48.0.8).
        .concurrency_support(false)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        // For the page of the checks, and for the compiler's own modules: they connect nested components, and it panics
        // without this. The scan rejects a plug-in with several memories in a module.
        .wasm_multi_memory(true)
        .wasm_custom_page_sizes(false)
        .cranelift_opt_level(OptLevel::Speed)
        // Only a child process compiles on several threads: this process has other work for its cores.
        .parallel_compilation(false)
        // The same bits on every machine: results may be stored.
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(limits.stack_bytes)
        // With 4 GiB of address space and guard pages, no access needs a check.
        .memory_reservation(MEMORY_RESERVATION_BYTES as u64)
        .memory_may_move(false)
        .memory_init_cow(true);
    config
}

fn pool_settings(config: &EngineConfig) -> InstanceAllocationStrategy {
    let limits = &config.limits;
    // Each component with core instances gets two more, and one more memory.
    let core_instances = limits.module.core_instances * (1 + checks::INSTANCES_ADDED) + CONNECTING_INSTANCES_MAX;
    let memories_max = limits.module.memories + limits.module.core_instances;
    let memories = config.instances.saturating_mul(MEMORIES_PER_INSTANCE).max(memories_max);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.instances)
        .total_core_instances(config.instances.saturating_mul(core_instances))
        .total_memories(memories)
        .total_tables(config.instances.saturating_mul(TABLES_PER_COMPONENT))
        .max_core_instances_per_component(core_instances)
        .max_memories_per_component(memories_max)
        .max_memories_per_module(MEMORIES_PER_MODULE)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_component_instance_size(INSTANCE_SIZE_BYTES)
        .max_core_instance_size(INSTANCE_SIZE_BYTES)
        .table_elements(limits.table_elements)
        .max_memory_size(limits.memory_bytes)
        .linear_memory_keep_resident(MEMORY_KEPT_BYTES);
    InstanceAllocationStrategy::Pooling(pool)
}
