//! Runs one instance of a plug-in: its memory, its typed functions, and the limits of each call.

use std::sync::Arc;

use wasmtime::component::{ComponentNamedList, InstancePre, Lift, Lower, TypedFunc};
use wasmtime::{ResourceLimiter, Store, Trap, WasmBacktrace};

use crate::batch::{Changed, Records};
use crate::contract::{ConfigError, GuestError, Kind, RawDescription};
use crate::deadline::{Page, Running, Watch};
use crate::engine::{Engine, Trust};
use crate::error::Fault;
use crate::error_lines::ErrorLines;
use crate::host_imports::{Caller, escape};
use crate::limits::{Limits, WASM_PAGE_BYTES};

/// The most bytes of a description, or of the response of `configure`.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// The state of the host for one instance.
pub(crate) struct HostState {
    pub(crate) caller: Caller,
    /// The errors that it logged in the call that runs. If it traps, they say why.
    pub(crate) error_lines: ErrorLines,
    limiter: Limiter,
    /// The watch of its calls, if they have a deadline.
    watch: Option<Arc<Watch>>,
}

impl HostState {
    /// Takes the page of the checks of one component, before that runs code of the plug-in.
    pub(crate) fn announce(&mut self, page: Page) {
        // The page is no memory of the plug-in.
        self.limiter.memory_bytes = self.limiter.memory_bytes.saturating_sub(WASM_PAGE_BYTES);
        if let Some(watch) = &self.watch {
            watch.add_page(page);
        }
    }
}

/// Rejects growth past the limits, and remembers it: a guest that traps after that is out of memory.
struct Limiter {
    memory_bytes_max: usize,
    /// The current memory, of all memories together. It never shrinks.
    memory_bytes: usize,
    table_elements_max: usize,
    refused: bool,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        // One memory is meant to have pages, but each may grow: together they have the limit.
        let together = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        let allowed = together <= self.memory_bytes_max;
        self.refused |= !allowed;
        if allowed {
            self.memory_bytes = together;
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements_max)
    }
}

type Response<T> = (Result<T, GuestError>,);
type PartitionFunction = TypedFunc<(&'static str, u32, &'static [u64], Records<'static>), Response<Vec<u32>>>;
type SerializeFunction = TypedFunc<(&'static str, Records<'static>), Response<Changed>>;
type CompressFunction = TypedFunc<(&'static [u8],), (Result<Vec<u8>, String>,)>;
type DecompressFunction = TypedFunc<(&'static [u8], u32), (Result<Vec<u8>, String>,)>;
type FilterFunction = TypedFunc<(&'static str, Records<'static>), Response<Vec<u8>>>;

/// The functions of a world. `TypedFunc` is covariant in its parameters, so that a call can pass short borrows.
pub(crate) enum Functions {
    Partitioner { partition: PartitionFunction },
    Serializer { serialize: SerializeFunction, deserialize: SerializeFunction },
    Compressor { compress: CompressFunction, decompress: DecompressFunction },
    Filter { filter: FilterFunction },
}

/// Limits one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The name of the call in the contract, for errors.
    pub(crate) call: &'static str,
    /// The bytes that the guest works through. They decide its deadline.
    pub(crate) work_bytes: usize,
    /// The most bytes that are copied from the guest.
    pub(crate) response_bytes_max: usize,
}

impl Bounds {
    /// Limits a call without a batch.
    fn text(call: &'static str) -> Bounds {
        Bounds { call, work_bytes: 0, response_bytes_max: TEXT_BYTES_MAX }
    }
}

/// Reports why an instance did not start.
pub(crate) enum StartError {
    /// Its exports have other types than in the contract.
    Contract(String),
    /// It misbehaved, or too many instances run.
    Fault(Fault),
}

/// Runs one call at a time. It is thrown away after a trap.
pub(crate) struct Instance {
    engine: Engine,
    watch: Option<Arc<Watch>>,
    store: Store<HostState>,
    describe: TypedFunc<(), (RawDescription,)>,
    configure: TypedFunc<(&'static str,), (Result<(), ConfigError>,)>,
    pub(crate) functions: Functions,
}

impl Instance {
    /// Instantiates the plug-in under the limits of a call, and checks the types of the exports.
    pub(crate) fn start(
        engine: &Engine,
        trust: Trust,
        pre: &InstancePre<HostState>,
        kind: Kind,
        caller: Caller,
    ) -> Result<Instance, StartError> {
        let watch = match trust {
            Trust::Foreign => Some(engine.ticker().watch()),
            Trust::Own => None,
        };
        let mut started = instantiate(engine, watch.as_ref(), pre, &caller);
        if let Err(Fault::Exhausted(_)) = started {
            // Drops the idle instances of other stages.
            engine.make_room();
            started = instantiate(engine, watch.as_ref(), pre, &caller);
        }
        let (mut store, instance) = started.map_err(StartError::Fault)?;
        let mut exports = Exports { store: &mut store, instance };
        let describe = exports.function("describe")?;
        let configure = exports.function("configure")?;
        let functions = match kind {
            Kind::Partitioner => Functions::Partitioner { partition: exports.function("partition")? },
            Kind::Serializer => Functions::Serializer {
                serialize: exports.function("serialize")?,
                deserialize: exports.function("deserialize")?,
            },
            Kind::Compressor => Functions::Compressor {
                compress: exports.function("compress")?,
                decompress: exports.function("decompress")?,
            },
            Kind::Filter => Functions::Filter { filter: exports.function("filter")? },
        };
        Ok(Instance { engine: engine.clone(), watch, store, describe, configure, functions })
    }

    /// Calls `describe`.
    pub(crate) fn describe(&mut self) -> Result<RawDescription, Fault> {
        let describe = self.describe;
        let (description,) = self.call(Bounds::text("describe"), &describe, ())?;
        Ok(description)
    }

    /// Calls `configure`.
    pub(crate) fn configure(&mut self, json: &str) -> Result<(), Fault> {
        let configure = self.configure;
        let (response,) = self.call(Bounds::text("configure"), &configure, (json,))?;
        response.map_err(|ConfigError { field, message }| Fault::Config {
            field: escape(&field),
            message: escape(&message),
        })
    }

    /// Calls a function of the guest under its limits.
    pub(crate) fn call<P, R>(&mut self, bounds: Bounds, function: &TypedFunc<P, R>, parameters: P) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        guard(&self.engine, self.watch.as_deref(), &mut self.store, bounds, |store| function.call(store, parameters))
    }

    /// Returns the size of its linear memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.engine.limits()
    }
}

fn instantiate(
    engine: &Engine,
    watch: Option<&Arc<Watch>>,
    pre: &InstancePre<HostState>,
    caller: &Caller,
) -> Result<(Store<HostState>, wasmtime::component::Instance), Fault> {
    let mut store = new_store(engine, watch.cloned(), pre.engine(), caller.clone());
    let watch = watch.map(|watch| &**watch);
    let instance = guard(engine, watch, &mut store, Bounds::text("instantiate"), |store| pre.instantiate(store))?;
    Ok((store, instance))
}

fn new_store(
    engine: &Engine,
    watch: Option<Arc<Watch>>,
    wasmtime: &wasmtime::Engine,
    caller: Caller,
) -> Store<HostState> {
    let limits = engine.limits();
    let state = HostState {
        caller,
        error_lines: ErrorLines::default(),
        limiter: Limiter {
            memory_bytes_max: limits.memory_bytes,
            memory_bytes: 0,
            table_elements_max: limits.table_elements,
            refused: false,
        },
        watch,
    };
    let mut store = Store::new(wasmtime, state);
    store.limiter(|state| &mut state.limiter);
    store
}

/// Runs guest code under its deadline (if it has one), its memory limit and the limit of its response.
fn guard<R>(
    engine: &Engine,
    watch: Option<&Watch>,
    store: &mut Store<HostState>,
    bounds: Bounds,
    run: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<R>,
) -> Result<R, Fault> {
    let state = store.data_mut();
    state.limiter.refused = false;
    state.error_lines.clear();
    // wasmtime counts the lists of a response against this before it copies them.
    store.set_hostcall_fuel(bounds.response_bytes_max);
    let limit = || engine.limits().deadline_for(bounds.work_bytes);
    let running = watch.map(|watch| watch.begin(limit(), engine.ticker()));
    let result = run(store);
    let was_stopped = running.is_some_and(Running::end);
    result.map_err(|error| match error.downcast_ref::<Trap>() {
        // The fault of the write that stopped it.
        Some(Trap::MemoryOutOfBounds) if was_stopped => Fault::Deadline { call: bounds.call, limit: limit() },
        _ => fault(&error, bounds, store.data(), engine),
    })
}

/// Translates the error of a call to a fault.
fn fault(error: &wasmtime::Error, bounds: Bounds, state: &HostState, engine: &Engine) -> Fault {
    let call = bounds.call;
    let limits = engine.limits();
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Fault::Exhausted(engine.instances_max());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => return Fault::Stack { call, limit_bytes: limits.stack_bytes },
        Some(_) if state.limiter.refused => return Fault::Memory { call, limit_bytes: limits.memory_bytes },
        _ => {}
    }
    let cause = error.root_cause().to_string();
    // wasmtime does not export the type of this error.
    if cause.contains("fuel allocated for hostcalls has been exhausted") {
        return Fault::ResponseTooLarge { call, max_bytes: bounds.response_bytes_max };
    }
    let trace = error.downcast_ref::<WasmBacktrace>();
    let function = trace.and_then(|trace| trace.frames().first()?.func_name());
    let reason = match (state.error_lines.message(), function) {
        // A logged message says more than the name of the function that ends a panic.
        (Some(message), _) => format!("{cause}; it logged: {}", escape(message)),
        (None, Some(function)) => format!("{cause}, in {}", escape(function)),
        (None, None) => cause,
    };
    Fault::Trap { call, reason }
}

/// Looks up the exports of an instance with their types.
struct Exports<'s> {
    store: &'s mut Store<HostState>,
    instance: wasmtime::component::Instance,
}

impl Exports<'_> {
    fn function<P, R>(&mut self, name: &'static str) -> Result<TypedFunc<P, R>, StartError>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.instance.get_typed_func(&mut *self.store, name).map_err(|error| {
            let problem = format!("the export `{name}` has the wrong type: {error:#}");
            StartError::Contract(problem)
        })
    }
}
