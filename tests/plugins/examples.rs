//! The examples in docs/stages.md.

use std::collections::BTreeSet;

use millstream_plugins::DEFAULTS;
use millstream_stage::StageSpec;

use crate::components::stage;

/// The plug-ins that need a configuration.
const CONFIGURED: [&str; 9] =
    ["avro", "contains", "header", "json-compare", "json-field", "json-schema", "key-set", "protobuf", "sample"];

#[test]
fn every_default_plugin_has_an_example_that_works() {
    let page = include_str!("../../docs/stages.md");
    let (_, section) = page.split_once("## The default plug-ins\n").expect("the section");
    let section = section.split("\n## ").next().expect("the section");
    let mut seen = BTreeSet::new();
    for text in section.split('`').skip(1).step_by(2) {
        let Ok(spec) = StageSpec::parse(text) else { continue };
        let Some(plugin) = millstream_plugins::find(&spec.source.to_string()) else { continue };
        // The mere name of one that needs a configuration is no example.
        if spec.config == "{}" && CONFIGURED.contains(&plugin.name) {
            continue;
        }
        stage(plugin.name, &spec.config);
        seen.insert(plugin.name);
    }
    assert_eq!(seen, DEFAULTS.iter().map(|plugin| plugin.name).collect());
}
