//! Checks the SDK's checked-in bindings against the contract. They are checked in so that a plug-in builds without the
//! generator, which takes longer to compile than everything else that a plug-in needs.
//!
//! `MILLSTREAM_WRITE_BINDINGS=1 cargo test --workspace --test plugins bindings` writes the files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::{Opts, WithOption};
use wit_parser::Resolve;

const WORLDS: [&str; 4] = ["filter", "partitioner", "serializer", "compressor"];

/// The interfaces of the contract. The first world's module holds their types, and the other worlds use those.
const INTERFACES: [&str; 3] = ["batch", "types", "host"];

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("sdk")
}

#[test]
fn the_bindings_are_those_of_the_contract() {
    for world in WORLDS {
        let path = sdk().join("rust/src/bindings").join(world).with_extension("rs");
        let generated = bindings(world);
        if env::var_os("MILLSTREAM_WRITE_BINDINGS").is_some() {
            fs::write(&path, &generated).unwrap();
        }
        let present = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            present == generated,
            "{} is not what the contract generates: see the head of this test",
            path.display()
        );
    }
}

/// Generates the bindings of one world.
fn bindings(world: &str) -> String {
    let mut resolve = Resolve::default();
    let (contract, _) = resolve.push_path(sdk().join("wit/1.0.0")).unwrap();
    let id = resolve.select_world(&[contract], Some(world)).unwrap();
    let is_first = world == WORLDS[0];
    // A compressor does not use the interface of records.
    let shared = INTERFACES.iter().filter(|interface| !is_first && (world != "compressor" || **interface != "batch"));
    let options = Opts {
        format: true,
        generate_all: true,
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        with: shared.map(|interface| shared_types(interface)).collect(),
        ..Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, id, &mut files).unwrap();
    let (_, generated) = files.iter().next().unwrap();
    without_section(std::str::from_utf8(generated).unwrap())
}

/// Returns where the types of an interface are.
fn shared_types(interface: &str) -> (String, WithOption) {
    let module = format!("crate::bindings::{}::millstream::stage::{interface}", WORLDS[0]);
    (format!("millstream:stage/{interface}@1.0.0"), WithOption::Path(module))
}

/// Removes the custom section that describes the imports of the world. Otherwise every plug-in would carry the sections
/// of all four worlds. Their union is more than its own world imports. The export macro, which stays, describes the
/// plug-in's world.
fn without_section(generated: &str) -> String {
    const START: &str = "\n#[rustfmt::skip]\n#[cfg(target_arch = \"wasm32\")]\n#[unsafe(\n";
    const END: &str = "\";\n";
    let (before, section) = generated.split_once(START).expect("a section of the imports");
    let (section, after) = section.split_once(END).expect("the section ends");
    assert!(section.contains("encoded world") && !section.contains("fn "), "{section}");
    format!("{before}\n{after}")
}
