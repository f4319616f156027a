//! Replaces some functions of a random module by good ones, so that the host gets as far as the random ones.
//!
//! A module of random functions alone fails at the first word that it returns: its allocator returns an address
//! outside of its memory, and nothing else is called.

use millstream_stage::Kind;
use wasm_encoder::{CodeSection, Function, FunctionSection};
use wasmparser::{
    BinaryReader, CodeSectionReader, ExportSectionReader, ExternalKind, FunctionBody, FunctionSectionReader,
    ImportSectionReader, TypeRef,
};

use crate::sections::{Sections, id};

/// What becomes of an exported function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stays random.
    Random,
    /// It returns what the random function returns, as an address in the first pages.
    Masked,
    /// It calls the random function, and then returns a right result.
    ThenGood,
    /// It is a good function.
    Good,
}

/// The bits of an address that [`Change::Masked`] keeps: aligned, and where the good functions write.
const ADDRESS_MASK: i32 = 0x3ffc;

/// Returns the names of the functions that a plug-in of this kind exports.
pub(crate) fn names(kind: Kind) -> Vec<String> {
    let mut names: Vec<String> =
        ["cabi_realloc", "describe", "configure", "cabi_post_configure"].map(str::to_owned).into();
    for call in kind.calls() {
        names.extend([(*call).to_owned(), format!("cabi_post_{call}")]);
    }
    names
}

/// Returns the type of a function of the contract, in the core: its parameters, and whether it returns an address.
fn signature(name: &str) -> (u32, bool) {
    match name {
        "cabi_realloc" => (4, true),
        "describe" => (0, true),
        "configure" | "compress" => (2, true),
        "decompress" => (3, true),
        "partition" | "serialize" | "deserialize" | "filter" => (1, true),
        _ => (1, false),
    }
}

/// Returns the type of a function as text.
fn typed(name: &str) -> String {
    let (parameters, returns) = signature(name);
    let result = if returns { "(result i32)" } else { "" };
    format!("(param{}) {result}", " i32".repeat(parameters as usize))
}

/// Returns a module with the exports of a kind, whose functions do nothing.
pub(crate) fn shape(kind: Kind) -> Vec<u8> {
    let functions =
        names(kind).into_iter().map(|name| format!("(func (export \"{name}\") {} unreachable)", typed(&name)));
    let text = format!("(module (memory (export \"memory\") 3) {})", functions.collect::<String>());
    wat::parse_str(text).expect("a module")
}

/// Returns the text of a good function. Each works without a global and without data: the random module has its own.
///
/// 1200 has the top of the heap, 1208 the name, 1024 the description, 2048 a result, 8192 what a result points to.
fn good(name: &str, kind: Kind, columns: u8) -> String {
    let result = |list: &str, length: &str| {
        format!(
            "(i32.store (i32.const 2048) (i32.const 0)) (i32.store (i32.const 2052) {list})
             (i32.store (i32.const 2056) {length}) (i32.const 2048)"
        )
    };
    match name {
        "cabi_realloc" => "(local $start i32) (local $end i32)
             (local.set $start (i32.load (i32.const 1200)))
             (if (i32.lt_u (local.get $start) (i32.const 65536)) (then (local.set $start (i32.const 65536))))
             (local.set $end (i32.add (local.get $start) (local.get 3)))
             (i32.store (i32.const 1200) (i32.and (i32.add (local.get $end) (i32.const 7)) (i32.const -8)))
             (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
               (then (drop (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1))))))
             (local.get $start)"
            .to_owned(),
        "describe" => {
            let world = Kind::ALL.iter().position(|one| *one == kind).expect("one of them");
            let has_format = i32::from(kind == Kind::Compressor);
            let words = [(1208, 0x646e_6172), (1212, 0x0031_2e30), (1024, 1208), (1028, 4), (1032, 1212), (1036, 3)]
                .into_iter()
                .chain([(1040, world as i32 | i32::from(columns) << 8), (1044, has_format), (1048, 4)])
                .chain([(1052, 1208), (1056, 4)]);
            let stores = words.map(|(at, word)| format!("(i32.store (i32.const {at}) (i32.const {word}))"));
            format!("{} (i32.const 1024)", stores.collect::<String>())
        }
        "configure" => "(i32.store (i32.const 2048) (i32.const 0)) (i32.const 2048)".to_owned(),
        "partition" => {
            let length = "(i32.load offset=20 (local.get 0))";
            let clear = format!("(memory.fill (i32.const 8192) (i32.const 0) (i32.shl {length} (i32.const 2)))");
            format!("{clear} {}", result("(i32.const 8192)", length))
        }
        "filter" => {
            let length = "(i32.shr_u (i32.add (i32.load offset=8 (local.get 0)) (i32.const 7)) (i32.const 3))";
            format!("(memory.fill (i32.const 8192) (i32.const 0) {length}) {}", result("(i32.const 8192)", length))
        }
        "serialize" | "deserialize" => {
            "(memory.fill (i32.const 2048) (i32.const 0) (i32.const 64)) (i32.const 2048)".to_owned()
        }
        "compress" | "decompress" => result("(local.get 0)", "(local.get 1)"),
        // Frees the memory of the call.
        _ => "(i32.store (i32.const 1200) (i32.const 0))".to_owned(),
    }
}

/// Returns the text of a module of good functions. It has this text too, and runs this code before each batch.
pub(crate) fn model(kind: Kind, columns: u8, text: &str, before: &str) -> String {
    let functions = names(kind).into_iter().map(|name| {
        let before = if kind.calls().contains(&name.as_str()) { before } else { "" };
        format!("(func (export \"{name}\") {} {before} {})", typed(&name), good(&name, kind, columns))
    });
    format!("(module {text} (memory (export \"memory\") 3) {})", functions.collect::<String>())
}

/// Rewrites the exported functions of a random module of [`shape`]. `None` if it cannot be read.
pub(crate) fn rewrite(
    module: &[u8],
    kind: Kind,
    columns: u8,
    mut choose: impl FnMut(&str) -> Change,
) -> Option<Vec<u8>> {
    let names = names(kind);
    let model = wat::parse_str(model(kind, columns, "", "")).unwrap_or_else(|error| panic!("{error}"));
    let model = Sections::of(&model)?;
    let models = bodies(model.first(id::CODE)?)?;

    let mut sections = Sections::of(module)?;
    let imported = sections.first(id::IMPORT).map_or(Some(0), imported_functions)?;
    let mut types = types(sections.first(id::FUNCTION)?)?;
    let own = bodies(sections.first(id::CODE)?)?;
    let mut code: Vec<Vec<u8>> = own.iter().map(|body| body.as_bytes().to_vec()).collect();
    for export in ExportSectionReader::new(BinaryReader::new(sections.first(id::EXPORT)?, 0)).ok()? {
        let export = export.ok()?;
        let Some(model) = names.iter().position(|name| name == export.name) else { continue };
        let change = choose(export.name);
        if export.kind != ExternalKind::Func || change == Change::Random {
            continue;
        }
        let place = export.index.checked_sub(imported)? as usize;
        let (parameters, returns) = signature(export.name);
        // The random function moves to the end.
        let moved = imported + types.len() as u32;
        let random = code.get(place)?.clone();
        code[place] = match change {
            Change::Masked if returns => masked(parameters, moved),
            Change::ThenGood => then(parameters, returns, moved, &models[model])?,
            _ => models[model].as_bytes().to_vec(),
        };
        types.push(*types.get(place)?);
        code.push(random);
    }
    let (mut function_section, mut code_section) = (FunctionSection::new(), CodeSection::new());
    for index in types {
        function_section.function(index);
    }
    for body in &code {
        code_section.raw(body);
    }
    sections.replace_first(id::FUNCTION, &function_section);
    sections.replace_first(id::CODE, &code_section);
    Some(sections.to_bytes())
}

/// Returns a function that calls another one and masks the address that it returns.
fn masked(parameters: u32, callee: u32) -> Vec<u8> {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    for parameter in 0..parameters {
        code.local_get(parameter);
    }
    code.call(callee).i32_const(ADDRESS_MASK).i32_and().end();
    function.into_raw_body()
}

/// Returns a function that calls another one, forgets its result and goes on as the model does.
fn then(parameters: u32, returns: bool, callee: u32, model: &FunctionBody<'_>) -> Option<Vec<u8>> {
    let bytes = model.as_bytes();
    let start = model.get_operators_reader().ok()?.original_position() - model.range().start;
    let mut function = Function::new([]);
    let mut code = function.instructions();
    for parameter in 0..parameters {
        code.local_get(parameter);
    }
    code.call(callee);
    if returns {
        code.drop();
    }
    // Without the number of its locals, which is none.
    let call = &function.into_raw_body()[1..];
    Some([&bytes[..start], call, &bytes[start..]].concat())
}

fn bodies(code: &[u8]) -> Option<Vec<FunctionBody<'_>>> {
    CodeSectionReader::new(BinaryReader::new(code, 0)).ok()?.into_iter().collect::<Result<_, _>>().ok()
}

fn types(functions: &[u8]) -> Option<Vec<u32>> {
    FunctionSectionReader::new(BinaryReader::new(functions, 0)).ok()?.into_iter().collect::<Result<_, _>>().ok()
}

fn imported_functions(imports: &[u8]) -> Option<u32> {
    let imports = ImportSectionReader::new(BinaryReader::new(imports, 0)).ok()?;
    let mut count = 0;
    for import in imports.into_imports() {
        count += u32::from(matches!(import.ok()?.ty, TypeRef::Func(_)));
    }
    Some(count)
}
