//! The default plug-ins conform to the worlds of the contract, as `wasm-tools component targets` checks it.

use std::path::Path;

use millstream_plugins::DEFAULTS;
use millstream_stage::{Engine, EngineConfig};
use wit_parser::Resolve;

#[test]
fn every_default_plugin_conforms_to_the_world_of_its_kind() {
    let mut resolve = Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("sdk").join("wit/1.0.0");
    let (contract, _) = resolve.push_path(contract).unwrap();
    let engine = Engine::new(EngineConfig::default()).unwrap();
    for plugin in &DEFAULTS {
        let (name, component) = (plugin.name, plugin.component());
        let kind = engine.load(component).unwrap().kind().name();
        let world = resolve.select_world(&[contract], Some(kind)).unwrap();
        if let Err(error) = wit_component::targets(&resolve, world, component) {
            panic!("{name} does not conform to the world {kind}: {error:#}");
        }
    }
    assert!(!DEFAULTS.is_empty());
}
