//! Guests of the sandbox, well-behaved and hostile. Each is one of four well-behaved core modules
//! (`*.wat`) with code put at one of its hooks, made a component with the real contract: so a hostile
//! guest differs from a good one in one place, and that place is what its test is about.
//!
//! The sources include this file as a module of a test; there, a guest without a test is dead code,
//! and dead code does not compile.

use std::fmt::Write as _;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract itself.
const CONTRACT: &str = include_str!("../../sdk/wit/1.0.0/stage.wit");

const COMMON: &str = include_str!("common.wat");

/// The columns that a guest reads, as the bits of its description.
pub(crate) const TIMESTAMPS: u8 = 1;
pub(crate) const KEYS: u8 = 2;
pub(crate) const VALUES: u8 = 4;
pub(crate) const HEADERS: u8 = 8;

/// Where a guest's calls write their answers: the first byte tells right from wrong, the rest follows
/// at 2052.
pub(crate) const IMPORT_LOG: &str = r#"(import "millstream:stage/host@1.0.0" "log" (func $log (param i32 i32 i32)))"#;
pub(crate) const IMPORT_COUNT: &str =
    r#"(import "millstream:stage/host@1.0.0" "count" (func $count (param i32 i32 i64)))"#;

/// The place of a private format among those of the contract.
const PRIVATE: u8 = 4;

/// A guest that is being written.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    world: &'static str,
    source: &'static str,
    kind: u8,
    format: u8,
    name: String,
    version: String,
    columns: u8,
    number: u32,
    memory: String,
    text: Vec<u8>,
    imports: String,
    hooks: Vec<(String, String)>,
    edits: Vec<(String, String)>,
    contract: String,
}

impl Guest {
    fn new(world: &'static str, source: &'static str, kind: u8, columns: u8) -> Guest {
        Guest {
            world,
            source,
            kind,
            format: PRIVATE,
            name: format!("good-{world}"),
            version: "1.0.0".to_owned(),
            columns,
            number: 0,
            memory: "2".to_owned(),
            text: Vec::new(),
            imports: String::new(),
            hooks: Vec::new(),
            edits: Vec::new(),
            contract: CONTRACT.to_owned(),
        }
    }

    /// Row i goes to partition (i + number) modulo the partitions. It reads no column.
    pub(crate) fn partitioner() -> Guest {
        Guest::new("partitioner", include_str!("partitioner.wat"), 0, 0)
    }

    /// Answers the values as they came.
    pub(crate) fn serializer() -> Guest {
        Guest::new("serializer", include_str!("serializer.wat"), 1, VALUES)
    }

    /// Puts a byte in front.
    pub(crate) fn compressor() -> Guest {
        Guest::new("compressor", include_str!("compressor.wat"), 2, 0)
    }

    /// Keeps the rows whose value does not begin with an x.
    pub(crate) fn filter() -> Guest {
        Guest::new("filter", include_str!("filter.wat"), 3, VALUES)
    }

    pub(crate) fn name(mut self, name: &str) -> Guest {
        self.name = name.to_owned();
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Guest {
        self.version = version.to_owned();
        self
    }

    pub(crate) fn columns(mut self, columns: u8) -> Guest {
        self.columns = columns;
        self
    }

    /// What a compressor says that it writes, by its place among the formats of the contract.
    #[allow(dead_code)]
    pub(crate) fn format(mut self, format: u8) -> Guest {
        self.format = format;
        self
    }

    /// What a partitioner adds to each row's number: versions are told apart by it where they are
    /// swapped, which not every test does.
    #[allow(dead_code)]
    pub(crate) fn number(mut self, number: u32) -> Guest {
        self.number = number;
        self
    }

    /// The limits of the memory as they are written in WAT, in pages.
    pub(crate) fn memory(mut self, limits: &str) -> Guest {
        self.memory = limits.to_owned();
        self
    }

    /// Up to 800 bytes at address 192, for a hook to use.
    pub(crate) fn text(mut self, text: impl Into<Vec<u8>>) -> Guest {
        self.text = text.into();
        self
    }

    pub(crate) fn import(mut self, import: &str) -> Guest {
        self.imports.push_str(import);
        self
    }

    /// Puts code at a hook.
    pub(crate) fn hook(mut self, hook: &str, code: &str) -> Guest {
        self.hooks.push((hook.to_owned(), code.to_owned()));
        self
    }

    /// Puts code at a hook that runs only when there are rows: the host's probe has none.
    pub(crate) fn hook_with_rows(self, hook: &str, code: &str) -> Guest {
        self.hook(hook, &format!("(if (local.get $rows) (then {code}))"))
    }

    /// Has a filter name the rows whose value begins with a p as bad, in the words of its text.
    #[allow(dead_code)]
    pub(crate) fn naming_bad_rows(self) -> Guest {
        let length = self.text.len();
        let name = format!(
            "(local.set $end (i32.add (local.get $out) (i32.mul (local.get $byte) (i32.const 12))))
             (i32.store (local.get $end) (local.get $row))
             (i32.store offset=4 (local.get $end) (i32.const 192))
             (i32.store offset=8 (local.get $end) (i32.const {length}))
             (local.set $byte (i32.add (local.get $byte) (i32.const 1)))"
        );
        let walk = format!(
            "(local.set $out (call $allocate (i32.mul (local.get $rows) (i32.const 12))))
             (block $named
               (loop $name
                 (br_if $named (i32.ge_u (local.get $row) (local.get $rows)))
                 (local.set $end (i32.load (i32.add (i32.load offset=60 (local.get $p))
                   (i32.shl (local.get $row) (i32.const 2)))))
                 (if (i32.lt_u (local.get $start) (local.get $end))
                   (then (if (i32.eq (i32.const 112)
                       (i32.load8_u (i32.add (i32.load offset=52 (local.get $p)) (local.get $start))))
                     (then {name}))))
                 (local.set $start
                   (i32.load (i32.add (i32.load offset=60 (local.get $p)) (i32.shl (local.get $row) (i32.const 2)))))
                 (local.set $row (i32.add (local.get $row) (i32.const 1)))
                 (br $name)))
             (if (local.get $byte)
               (then
                 (i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 0))
                 (i32.store (i32.const 2056) (local.get $out)) (i32.store (i32.const 2060) (local.get $byte))
                 (return (i32.const 2048))))
             (local.set $start (i32.const 0)) (local.set $row (i32.const 0))"
        );
        self.hook("filter", &walk)
    }

    /// Changes the text of the guest where there is no hook.
    pub(crate) fn edit(mut self, from: &str, to: &str) -> Guest {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Changes the contract that the guest is made for.
    pub(crate) fn contract(mut self, change: impl FnOnce(&str) -> String) -> Guest {
        let changed = change(&self.contract);
        assert_ne!(changed, self.contract, "the contract is not changed by this");
        self.contract = changed;
        self
    }

    /// The core module, without the contract.
    pub(crate) fn core(&self) -> Vec<u8> {
        let mut body = format!("{COMMON}\n{}", self.source);
        for (hook, code) in &self.hooks {
            let marker = format!(";;@{hook}\n");
            assert!(body.contains(&marker), "no hook {hook} in {}", self.world);
            body = body.replace(&marker, &format!("{code}\n{marker}"));
        }
        for (from, to) in &self.edits {
            assert!(body.contains(from), "no {from} in {}", self.world);
            body = body.replace(from, to);
        }
        let mut data = format!("(data (i32.const 64) \"{}\")", escape(self.name.as_bytes()));
        let version = escape(self.version.as_bytes());
        let _ = write!(data, "(data (i32.const 128) \"{version}\")");
        let _ = write!(data, "(data (i32.const 192) \"{}\")", escape(&self.text));
        let _ = write!(data, "(data (i32.const 1024) \"{}\")", escape(&self.description()));
        let text = format!(
            "(module {} (memory (export \"memory\") {}) {data}
               (global $number i32 (i32.const {}))
               {body})",
            self.imports, self.memory, self.number
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The component.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut core = self.core();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("stage.wit", &self.contract).expect("a contract");
        let world = resolve.select_world(&[package], Some(self.world)).expect("its world");
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).expect("metadata");
        ComponentEncoder::default()
            .validate(true)
            .module(&core)
            .expect("a module of the contract")
            .encode()
            .expect("a component")
    }

    /// The record that `describe` answers, as the canonical ABI lays it out.
    fn description(&self) -> Vec<u8> {
        let mut record = Vec::new();
        let string = |address: u32, text: &str| [address, text.len() as u32];
        for word in string(64, &self.name).into_iter().chain(string(128, &self.version)) {
            record.extend(word.to_le_bytes());
        }
        record.extend([self.kind, self.columns, 0, 0]);
        // The format, for a compressor alone: some, private unless it says otherwise, and the guest's name once more.
        let is_compressor = self.world == "compressor";
        record.extend([u8::from(is_compressor), 0, 0, 0, self.format, 0, 0, 0]);
        for word in string(64, &self.name) {
            record.extend(word.to_le_bytes());
        }
        record
    }
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}
