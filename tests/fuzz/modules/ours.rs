//! Our own plug-ins, and what becomes of them when bytes or instructions change.

use std::sync::LazyLock;

use fastrand::Rng;
use millstream_plugins::DEFAULTS;
use millstream_stage::Kind;
use wasm_mutate::WasmMutate;

use crate::bodies;
use crate::guests::{Guest, IMPORT_LOG};
use crate::sections::{Sections, id};

/// How much the mutator may search before it gives up.
const FUEL: u64 = 300;

/// The configurations of the default plug-ins that need one.
const CONFIGS: [(&str, &str); 9] = [
    ("contains", r#"{"text":"a"}"#),
    ("header", r#"{"name":"type","contains":"a"}"#),
    ("json-compare", r#"{"path":"/a","op":">=","value":1}"#),
    ("json-field", r#"{"path":"/a"}"#),
    ("json-schema", r#"{"schema":{"type":"object","required":["a"]}}"#),
    ("key-set", r#"{"keys":["a",{"hex":"0000002a"}]}"#),
    ("sample", r#"{"share":0.5}"#),
    ("avro", r#"{"id":1,"schema":{"type":"record","name":"A","fields":[{"name":"a","type":"long"}]}}"#),
    ("protobuf", r#"{"id":1,"schema":"syntax = \"proto3\"; message A { int64 a = 1; }"}"#),
];

/// A plug-in of ours.
pub(crate) struct Ours {
    pub(crate) component: Vec<u8>,
    pub(crate) config: &'static str,
}

/// The small guests of the tests. The last has the parts of components that come from compilers for WASI.
static GUESTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let small = [Guest::partitioner(), Guest::serializer(), Guest::compressor(), Guest::filter()];
    let logging = Guest::filter()
        .import(IMPORT_LOG)
        .text("a line")
        .hook("filter", "(call $log (i32.const 1) (i32.const 192) (i32.const 6))");
    let fd_write = r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 1300) "a line\0a")"#;
    let print = "(i32.store (i32.const 1280) (i32.const 1300)) (i32.store (i32.const 1284) (i32.const 7))
        (drop (call $write (i32.const 2) (i32.const 1280) (i32.const 1) (i32.const 1288)))";
    let printing = wat::parse_str(bodies::model(Kind::Filter, 15, fd_write, print)).expect("a module");
    let printing = millstream_sdk_build::adapt(&printing).expect("a module of the contract");
    small.iter().chain([&logging]).map(Guest::build).chain([printing]).collect()
});

/// Returns one of our plug-ins. Small ones come more often, since they take less time.
pub(crate) fn choose(random: &mut Rng) -> Ours {
    if random.bool() {
        let component = GUESTS[random.usize(..GUESTS.len())].clone();
        return Ours { component, config: "{}" };
    }
    let two = [(); 2].map(|()| &DEFAULTS[random.usize(..DEFAULTS.len())]);
    let plugin = two.into_iter().min_by_key(|plugin| plugin.component().len()).expect("two of them");
    let config = CONFIGS.iter().find(|(name, _)| *name == plugin.name).map_or("{}", |(_, config)| config);
    Ours { component: plugin.component().to_vec(), config }
}

/// Returns a good guest, to which random parts are added.
pub(crate) fn guest(random: &mut Rng) -> Vec<u8> {
    GUESTS[random.usize(..GUESTS.len())].clone()
}

/// Changes one of the core modules of a component, up to three times. `None` if the mutator finds nothing to change.
pub(crate) fn mutated(component: &[u8], random: &mut Rng) -> Option<Vec<u8>> {
    let mut sections = Sections::of(component)?;
    let modules = sections.places(id::CORE_MODULE);
    let place = *modules.get(random.usize(..modules.len()))?;
    let mut module = sections.data(place).to_vec();
    let mut is_changed = false;
    for _ in 0..random.usize(1..=3) {
        if let Some(changed) = mutate(&module, random) {
            module = changed;
            is_changed = true;
        }
    }
    sections.replace(place, module);
    is_changed.then(|| sections.to_bytes())
}

fn mutate(module: &[u8], random: &mut Rng) -> Option<Vec<u8>> {
    let mut mutator = WasmMutate::default();
    mutator.seed(random.u64(..)).fuel(FUEL).preserve_semantics(random.bool());
    let skipped = random.usize(..3);
    let mut found = mutator.run(module).ok()?.take(skipped + 1).filter_map(Result::ok);
    found.nth(skipped)
}

/// Flips bits, changes bytes, or cuts the end off.
pub(crate) fn damaged(component: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = component.to_vec();
    for _ in 0..random.usize(1..=4) {
        let place = random.usize(..bytes.len());
        match random.u8(..20) {
            0 => bytes.truncate(place.max(1)),
            1..=4 => bytes[place] = random.u8(..),
            _ => bytes[place] ^= 1 << random.u8(..8),
        }
    }
    bytes
}
