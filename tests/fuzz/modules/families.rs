//! Makes a module at random from its seed: always the same module from the same seed.

use arbitrary::{Arbitrary, Unstructured};
use fastrand::Rng;
use millstream_stage::Kind;
use wasm_encoder::{ComponentInstanceSection, ComponentSection, InstanceSection, ModuleArg};
use wasm_smith::{Component, Config, Module};

use crate::bodies::{self, Change};
use crate::ours;
use crate::sections::{self, Sections, id};

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A core module of `wasm-smith`, as it is.
    Core,
    /// A component of `wasm-smith`, as it is.
    Component,
    /// A good guest that also starts a core module of `wasm-smith`.
    BesideCore,
    /// A good guest that also has a component of `wasm-smith` inside.
    BesideComponent,
    /// A core module of `wasm-smith` with the functions of the contract, made a component as other languages are.
    Random,
    /// One of ours with core modules changed by `wasm-mutate`.
    Mutated,
    /// One of ours with damaged bytes.
    Damaged,
}

impl Family {
    pub(crate) const ALL: [Family; 7] = [
        Family::Core,
        Family::Component,
        Family::BesideCore,
        Family::BesideComponent,
        Family::Random,
        Family::Mutated,
        Family::Damaged,
    ];

    /// Returns the family of a seed.
    pub(crate) fn of(seed: u64) -> Family {
        match seed % 20 {
            0 => Family::Core,
            1 => Family::Component,
            2..=4 => Family::BesideCore,
            5 => Family::BesideComponent,
            6..=13 => Family::Random,
            14..=17 => Family::Mutated,
            _ => Family::Damaged,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Core => "core module",
            Family::Component => "component",
            Family::BesideCore => "core module beside a good guest",
            Family::BesideComponent => "component beside a good guest",
            Family::Random => "plug-in of random functions",
            Family::Mutated => "mutated plug-in of ours",
            Family::Damaged => "damaged plug-in of ours",
        }
    }
}

/// A module to try.
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    /// The configuration to start it with.
    pub(crate) config: &'static str,
}

/// Makes the module of a seed.
pub(crate) fn make(seed: u64) -> Made {
    let mut random = Rng::with_seed(seed);
    loop {
        // Some attempts have too few random bytes, or give a module that cannot be wrapped.
        if let Some(made) = attempt(Family::of(seed), &mut random) {
            return made;
        }
    }
}

fn attempt(family: Family, random: &mut Rng) -> Option<Made> {
    let plain = |bytes| Some(Made { bytes, config: "{}" });
    match family {
        Family::Core => plain(smith(random, Module::new)?.to_bytes()),
        Family::Component => plain(component(random)?),
        Family::BesideCore => plain(beside_core(random)?),
        Family::BesideComponent => plain(beside_component(random)?),
        Family::Random => plain(random_functions(random)?),
        Family::Mutated => {
            let ours = ours::choose(random);
            Some(Made { bytes: ours::mutated(&ours.component, random)?, config: ours.config })
        }
        Family::Damaged => {
            let ours = ours::choose(random);
            Some(Made { bytes: ours::damaged(&ours.component, random), config: ours.config })
        }
    }
}

/// Calls the generator with random bytes and a random configuration.
fn smith<T>(
    random: &mut Rng,
    generate: impl FnOnce(Config, &mut Unstructured<'_>) -> arbitrary::Result<T>,
) -> Option<T> {
    let mut bytes = vec![0; 256 << random.usize(..7)];
    random.fill(&mut bytes);
    let mut unstructured = Unstructured::new(&bytes);
    let config = Config::arbitrary(&mut unstructured).ok()?;
    generate(config, &mut unstructured).ok()
}

/// Leaves out what the scan rejects, most of the time.
fn tame(config: &mut Config, random: &mut Rng) {
    if random.u8(..16) == 0 {
        return;
    }
    config.gc_enabled = false;
    config.exceptions_enabled = false;
    config.threads_enabled = false;
    config.memory64_enabled = false;
    config.relaxed_simd_enabled = false;
    // Most modules with references have some that are no functions.
    config.reference_types_enabled &= random.u8(..4) == 0;
    config.max_tags = 0;
    config.max_tables = config.max_tables.min(1);
    config.max_table_elements = config.max_table_elements.min(9_000);
    config.max_memories = 0;
    config.max_imports = 0;
    config.max_type_size = 10_000;
}

fn component(random: &mut Rng) -> Option<Vec<u8>> {
    let limits = [(); 4].map(|()| random.usize(..6));
    let component = smith(random, |mut config, unstructured| {
        [config.max_components, config.max_modules, config.max_instances, config.max_values] = limits;
        Component::new(config, unstructured)
    })?;
    Some(component.to_bytes())
}

fn beside_core(random: &mut Rng) -> Option<Vec<u8>> {
    let mut choices = random.fork();
    let module = smith(random, |mut config, unstructured| {
        tame(&mut config, &mut choices);
        Module::new(config, unstructured)
    })?;
    let mut component = ours::guest(random);
    let index = Sections::of(&component)?.places(id::CORE_MODULE).len() as u32;
    sections::append(&mut component, id::CORE_MODULE, &module.to_bytes());
    let mut instances = InstanceSection::new();
    instances.instantiate(index, std::iter::empty::<(&str, ModuleArg)>());
    instances.append_to_component(&mut component);
    Some(component)
}

fn beside_component(random: &mut Rng) -> Option<Vec<u8>> {
    let nested = component(random)?;
    let mut component = ours::guest(random);
    let index = Sections::of(&component)?.places(id::COMPONENT).len() as u32;
    sections::append(&mut component, id::COMPONENT, &nested);
    if random.bool() {
        let mut instances = ComponentInstanceSection::new();
        instances.instantiate(index, std::iter::empty::<(&str, wasm_encoder::ComponentExportKind, u32)>());
        instances.append_to_component(&mut component);
    }
    Some(component)
}

/// What a plug-in may import.
const HOST: &str = r#"(module
    (import "millstream:stage/host@1.0.0" "log" (func (param i32 i32 i32)))
    (import "millstream:stage/host@1.0.0" "count" (func (param i32 i32 i64))))"#;

fn random_functions(random: &mut Rng) -> Option<Vec<u8>> {
    let kind = Kind::ALL[random.usize(..Kind::ALL.len())];
    let mut choices = random.fork();
    let module = smith(random, |mut config, unstructured| {
        tame(&mut config, &mut choices);
        config.exports = Some(bodies::shape(kind));
        config.max_imports = choices.usize(..8);
        config.available_imports = Some(wat::parse_str(HOST).expect("a module"));
        config.max_funcs = config.max_funcs.min(50);
        config.allow_start_export = choices.u8(..4) == 0;
        Module::new(config, unstructured)
    })?;
    let columns = random.u8(..16);
    let module = bodies::rewrite(&module.to_bytes(), kind, columns, |name| change(name, kind, random))?;
    millstream_sdk_build::adapt(&module).ok()
}

/// Chooses what becomes of a random function. Those that the host calls first are mostly good, so that it calls others.
fn change(name: &str, kind: Kind, random: &mut Rng) -> Change {
    let is_call = kind.calls().contains(&name);
    match (random.u8(..20), name) {
        (0..=8, _) if is_call => Change::Random,
        (9..=13, _) if is_call => Change::Masked,
        (14..=18, _) if is_call => Change::ThenGood,
        (0, _) => Change::Random,
        (1..=2, "configure" | "describe") => Change::Masked,
        (3..=5, _) => Change::ThenGood,
        _ => Change::Good,
    }
}
