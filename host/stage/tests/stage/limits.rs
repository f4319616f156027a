//! Both sides of every limit of a file, in both profiles.

use std::iter;

use millstream_stage::scan::inspect;
use millstream_stage::{Engine, EngineConfig, Fault, Limits, LoadError, Measure, Refusal, Stage};
use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentSection, ConstExpr, CustomSection, DataSection, Function,
    FunctionSection, InstanceSection, MemorySection, MemoryType, Module, ModuleSection, RawSection, RefType,
    TableSection, TableType, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

use crate::guests::Guest;
use crate::support::{call, engine};

const KIB: u64 = 1024;
const PAGE: u64 = 64 * KIB;

/// Returns a component around one core module.
fn component(module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    component.finish()
}

/// Returns a component with one function.
fn function(locals: &[(u32, ValType)], write: impl FnOnce(&mut Function)) -> Vec<u8> {
    let mut body = Function::new(locals.iter().copied());
    write(&mut body);
    body.instructions().end();
    let mut code = CodeSection::new();
    code.function(&body);
    component(Module::new().section(&types(1)).section(&functions(1)).section(&code))
}

fn types(count: u64) -> TypeSection {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function([], []));
    types
}

fn functions(count: u64) -> FunctionSection {
    let mut functions = FunctionSection::new();
    for _ in 0..count {
        functions.function(0);
    }
    functions
}

fn memory(pages: u64) -> MemorySection {
    let mut memories = MemorySection::new();
    let (memory64, shared, page_size_log2) = (false, false, None);
    memories.memory(MemoryType { minimum: pages, maximum: None, memory64, shared, page_size_log2 });
    memories
}

/// Returns a component with the same module several times.
fn modules(module: &Module, count: u64) -> Component {
    let mut component = Component::new();
    for _ in 0..count {
        component.section(&ModuleSection(module));
    }
    component
}

/// Returns the figure of a file, and whether the file is rejected for it.
fn measured(bytes: &[u8], measure: Measure, limits: &Limits) -> (u64, bool) {
    let found = inspect(bytes, limits);
    let is_over = |refusal: &Refusal| matches!(refusal, Refusal::TooLarge(figure) if figure.measure == measure);
    (found.figure(measure), found.refusals.iter().any(is_over))
}

/// Returns the smallest difference between two values of a measure.
fn step(measure: Measure) -> u64 {
    if measure == Measure::MemoryBytesMin { PAGE } else { 1 }
}

/// Returns a file in which the measure has this value.
fn file_with(measure: Measure, value: u64) -> Vec<u8> {
    let count = usize::try_from(value).expect("a count");
    let empty = Module::new();
    match measure {
        Measure::SizeBytes => {
            // A custom section takes the rest, after its id and its length of four bytes.
            let mut bytes = component(&empty);
            let rest = count - bytes.len() - 5;
            let more = [rest, rest >> 7, rest >> 14].map(|bits| bits as u8 | 0x80);
            bytes.extend([0].into_iter().chain(more).chain([(rest >> 21) as u8]));
            bytes.resize(count, 0);
            bytes
        }
        Measure::Functions => {
            let mut code = CodeSection::new();
            let body = [0, 0x0b];
            for _ in 0..count {
                code.raw(&body);
            }
            component(Module::new().section(&types(1)).section(&functions(value)).section(&code))
        }
        // The count of locals and the end take two bytes.
        Measure::BodyBytes => function(&[], |body| {
            body.raw(iter::repeat_n(0x01, count - 2));
        }),
        Measure::Locals => function(&[(value as u32, ValType::I32)], |_| {}),
        Measure::BlockDepth => function(&[], |body| {
            for _ in 0..count {
                body.instructions().block(BlockType::Empty);
            }
            for _ in 0..count {
                body.instructions().end();
            }
        }),
        Measure::BranchTargets => function(&[], |body| {
            let targets = vec![0; count];
            body.instructions().block(BlockType::Empty).i32_const(0).br_table(targets, 0).end();
        }),
        Measure::DataSegments => {
            let mut data = DataSection::new();
            for _ in 0..count {
                data.active(0, &ConstExpr::i32_const(0), []);
            }
            component(Module::new().section(&memory(1)).section(&data))
        }
        // The name takes two bytes.
        Measure::CustomBytes => {
            let data = vec![0; count - 2];
            component(Module::new().section(&CustomSection { name: "n".into(), data: data.as_slice().into() }))
        }
        // The component itself is one.
        Measure::Parts => modules(&empty, value - 1).finish(),
        Measure::CoreInstances => {
            let mut instances = InstanceSection::new();
            for _ in 0..count {
                instances.instantiate::<_, &str>(0, []);
            }
            modules(&empty, 1).section(&instances).as_slice().to_vec()
        }
        Measure::Memories => modules(Module::new().section(&memory(0)), value).finish(),
        Measure::Items => component(Module::new().section(&types(value))),
        Measure::MemoryBytesMin => component(Module::new().section(&memory(value / PAGE))),
        Measure::TableElementsMin => {
            let mut tables = TableSection::new();
            let (table64, shared) = (false, false);
            let element_type = RefType::FUNCREF;
            tables.table(TableType { element_type, table64, minimum: value, maximum: None, shared });
            component(Module::new().section(&tables))
        }
    }
}

#[test]
fn each_limit_accepts_its_value_and_rejects_one_more() {
    for limits in [Limits::default(), Limits::large()] {
        for measure in Measure::ALL {
            let max = measure.max(&limits);
            for (value, is_rejected) in [(max, false), (max + step(measure), true)] {
                let found = measured(&file_with(measure, value), measure, &limits);
                assert_eq!(found, (value, is_rejected), "{measure:?} of the profile {}", limits.profile);
            }
        }
    }
}

#[test]
fn the_figures_of_the_profiles() {
    let figures = |limits: &Limits| Measure::ALL.map(|measure| measure.max(limits));
    let shared = [1_000, 2_000, 10_000, 100_000, 1_024 * KIB, 256];
    let usual = [4_096 * KIB, 10_000, 128 * KIB].into_iter().chain(shared).chain([16, 8, 10_000, 256 * PAGE, 10_000]);
    assert!(figures(&Limits::default()).into_iter().eq(usual));
    let large = [20_480 * KIB, 16_000, 512 * KIB].into_iter().chain(shared).chain([48, 8, 16_000, 256 * PAGE, 10_000]);
    assert!(figures(&Limits::large()).into_iter().eq(large));
}

#[test]
fn every_reason_says_what_to_do() {
    for measure in Measure::ALL {
        let limits = Limits::default();
        let over = inspect(&file_with(measure, measure.max(&limits) + step(measure)), &limits);
        let reason = over.refusals.first().expect("a reason").to_string();
        let (figure, advice) = reason.split_once(" (").unwrap_or_else(|| panic!("no advice: {reason}"));
        assert!(figure.contains(&format!("is over the limit of {}", measure.max(&limits))), "{reason}");
        assert!(advice.len() > 10, "{reason}");
    }
    // Only what the larger profile allows is said to fit there.
    let reason = |measure, value| inspect(&file_with(measure, value), &Limits::default()).refusals[0].to_string();
    assert!(reason(Measure::Functions, 16_000).contains("the profile `large` allows it"));
    assert!(!reason(Measure::Functions, 16_001).contains("large"));
}

/// Adds modules and instances of them to a component, as tools do that stand in for imports.
fn with_more_instances(component: &[u8], module: &str, instances: u32) -> Vec<u8> {
    let mut depth = 0;
    let mut modules = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.expect("a component") {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ModuleSection { .. } if depth == 1 => modules += 1,
            _ => {}
        }
    }
    let mut bytes = component.to_vec();
    let module = wat::parse_str(format!("(module {module})")).expect("a module");
    let section = RawSection { id: 1, data: &module };
    section.append_to_component(&mut bytes);
    let mut added = InstanceSection::new();
    for _ in 0..instances {
        added.instantiate::<_, &str>(modules, []);
    }
    added.append_to_component(&mut bytes);
    bytes
}

#[test]
fn instances_and_memories_without_pages_run_up_to_their_limits() {
    let guest = Guest::filter().build();
    let (own, _) = measured(&guest, Measure::CoreInstances, &Limits::default());
    let room = 16 - u32::try_from(own).expect("a few");
    let full = with_more_instances(&guest, "", room);
    call(&Stage::new(engine().load(&full).expect("16 instances"), "{}").expect("a stage")).expect("a good response");
    let error = engine().load(&with_more_instances(&guest, "", room + 1)).expect_err("17 instances");
    assert!(error.to_string().contains("core instances: 17 is over the limit of 16"), "{error}");
    let large = EngineConfig { limits: Limits::large(), instances: 4, ..EngineConfig::default() };
    let large = Engine::new(large).expect("an engine");
    large.load(&with_more_instances(&guest, "", room + 32)).expect("48 instances of the larger profile");

    // One module with seven instances has seven memories in the pool.
    let stubs = with_more_instances(&guest, "(memory 0)", 7);
    call(&Stage::new(engine().load(&stubs).expect("8 memories"), "{}").expect("a stage")).expect("a good response");
    let pages = with_more_instances(&guest, "(memory 1)", 1);
    let error = engine().load(&pages).expect_err("two memories with pages");
    let LoadError::Refused(refusals) = &error else { panic!("{error}") };
    assert_eq!(refusals.first(), &Refusal::Feature("several memories with pages"));
}

/// Grows the memory of its module until it cannot, in its start function.
const GROW_ALL: &str = "(memory 0) (func $start (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))) (start $start)";

#[test]
fn all_memories_together_have_one_limit() {
    let grow = "(if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))";
    let guest = Guest::partitioner().hook_with_rows("partition", grow).build();
    let alone = Stage::new(engine().load(&guest).expect("a guest"), "{}").expect("a stage");
    assert!(matches!(call(&alone).expect_err("there is a page").fault, Fault::Trap { .. }));
    // The other memory takes all pages that the guest's own leaves.
    let both = with_more_instances(&guest, GROW_ALL, 1);
    call(&Stage::new(engine().load(&both).expect("a guest"), "{}").expect("a stage")).expect("no page is left");
}
