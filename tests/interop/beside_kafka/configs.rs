//! All configs of Apache Kafka's topics and brokers: each is known here, with the same type and default, and acts or
//! says that it does not.

use std::collections::BTreeMap;

use millstream_tests::{Broker, KafkaNode};
use millstream_wire::Str;
use millstream_wire::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsSynonym,
};

use super::create;
use crate::support::Raw;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// The source of a default.
const DEFAULT: i8 = 5;

/// What has another default here: a bound, an order of names, this machine only, and another folder.
const OTHER_DEFAULTS: [&str; 4] = ["group.max.size", "listener.security.protocol.map", "listeners", "log.dir"];

/// Parts of Kafka that are not there, or whose files are not Kafka's.
const OTHER_PARTS: [&str; 2] = ["metadata.", "share."];

/// What no config without effect may be about: this part of Kafka is there.
const STORAGE: [&str; 4] = ["cleaner", "retention", "segment", "flush"];

type Configs = BTreeMap<String, DescribeConfigsResourceResult>;

fn describe(raw: &mut Raw, resource_type: i8, name: &str) -> Configs {
    let resource = DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys: None };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: true };
    let configs = raw.call(4, &request).results.remove(0).configs;
    configs.into_iter().map(|config| (config.name.to_string(), config)).collect()
}

/// Returns the default of a config.
fn default(config: &DescribeConfigsResourceResult) -> Option<String> {
    let is_default = |synonym: &&DescribeConfigsSynonym| synonym.source == DEFAULT;
    let value = config.synonyms.iter().find(is_default)?.value.clone();
    value.as_deref().map(str::to_owned)
}

pub(super) fn all_are_known(classpath: &str) {
    let kafka = KafkaNode::start_release(classpath, &[], &[]);
    let broker = Broker::start();
    let [mut theirs, mut ours] = [Raw::to(kafka.address()), Raw::connect(&broker)];
    let mut different = Vec::new();
    for (resource_type, name) in [(TOPIC, "topic"), (BROKER, "0")] {
        let [theirs, ours] = [&mut theirs, &mut ours].map(|raw| {
            if resource_type == TOPIC {
                create(raw, name, 1, &[]);
            }
            describe(raw, resource_type, name)
        });
        assert!(theirs.len() > 30, "Kafka describes its configs: {}", theirs.len());
        for (name, their) in &theirs {
            let Some(our) = ours.get(name) else {
                different.push(format!("{name} is not known"));
                continue;
            };
            if our.config_type != their.config_type {
                different.push(format!("{name} has type {} and {} in Kafka", our.config_type, their.config_type));
            }
            let is_other = OTHER_DEFAULTS.contains(&name.as_str());
            // Kafka does not show all of its defaults.
            if default(their).is_some() && default(our) != default(their) && !is_other {
                different.push(format!("{name} is {:?} and {:?} in Kafka", default(our), default(their)));
            }
            let words = our.documentation.as_ref().map(Str::as_str).unwrap_or_default();
            let is_inert = words.contains("without effect");
            let is_of_storage = !OTHER_PARTS.iter().any(|part| name.starts_with(part));
            if is_inert
                && is_of_storage
                && STORAGE.iter().any(|part| name.contains(part))
                && !words.contains("tiered storage")
            {
                different.push(format!("{name} has no effect: {words}"));
            }
        }
    }
    assert!(different.is_empty(), "{} differences:\n{}", different.len(), different.join("\n"));
}
