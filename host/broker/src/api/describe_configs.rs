//! DescribeConfigs: every config of a topic or of the broker, with its value, the source of the value, and its
//! documentation.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_metadata::MetadataImage;
use millstream_wire::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use millstream_wire::{ConfigResourceType, ErrorCode, Str};

use super::handler::{ENTRY_BYTES, Handler, RequestContext};
use crate::broker::Broker;
use crate::config::{
    Key, Kind, PLUGIN_STATS, REJECTED_PRODUCERS, TopicOverrides, all_broker_keys, all_topic_keys, broker_key,
    inherited, is_dynamic,
};
use crate::edge::plugins;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

/// The source of a value, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Topic = 1,
    Broker = 2,
    AllBrokers = 3,
    BrokerFile = 4,
    Default = 5,
}

/// One config with its value.
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) value: Option<String>,
    pub(super) source: Source,
    /// Every source that sets it, the one in force first.
    synonyms: Vec<Synonym>,
    read_only: bool,
}

/// The name of a key, its value, and where that is set.
type Synonym = (String, Option<String>, Source);

pub(super) struct DescribeConfigs;

impl Handler for DescribeConfigs {
    type Request = DescribeConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=4;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::DescribeConfigs, ResourceType::Topic));

    fn response_bytes(_: &Broker, _: &RequestContext, request: &DescribeConfigsRequest) -> usize {
        let entries = request.resources.iter().map(|resource| match &resource.configuration_keys {
            Some(keys) if !keys.is_empty() => keys.len(),
            _ if resource.resource_type == ConfigResourceType::Topic as i8 => all_topic_keys().count(),
            _ => all_broker_keys().count(),
        });
        ENTRY_BYTES * entries.sum::<usize>()
    }

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        let (synonyms, words) = (request.include_synonyms, request.include_documentation);
        let results = request.resources.into_iter().map(|resource| {
            let (error_code, error_message, configs) = match entries(broker, &resource) {
                Ok(entries) => {
                    let wanted = |entry: &Entry| match &resource.configuration_keys {
                        Some(keys) if !keys.is_empty() => keys.iter().any(|key| *key == entry.key.name),
                        _ => true,
                    };
                    let described = entries.into_iter().filter(wanted).map(|entry| entry.describe(synonyms, words));
                    (ErrorCode::NONE, None, described.collect())
                }
                Err(error) => (error.code, error.text(), Vec::new()),
            };
            DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                configs,
            }
        });
        DescribeConfigsResponse { results: results.collect(), ..Default::default() }
    }
}

fn entries(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Entry>, ApiError> {
    let resource_type = ConfigResourceType::try_from(resource.resource_type)
        .map_err(|other| ApiError::new(ErrorCode::INVALID_REQUEST, format!("Unsupported resource type {other}")))?;
    match resource_type {
        ConfigResourceType::Topic => {
            millstream_metadata::check_name(&resource.resource_name)?;
            let image = broker.metadata.image();
            let topic = image.topic(&resource.resource_name).ok_or_else(ApiError::unknown_topic)?;
            Ok(topic_entries(broker, &image, &topic.configs).collect())
        }
        ConfigResourceType::Broker if resource.resource_name.is_empty() => Ok(default_entries(broker)),
        ConfigResourceType::Broker => {
            check_broker(broker, &resource.resource_name)?;
            let mut entries: Vec<Entry> = all_broker_keys().map(|key| broker_entry(broker, key)).collect();
            // These values are long and change with every batch, so they are returned only when requested by name.
            let requested = resource.configuration_keys.as_deref().unwrap_or_default();
            if requested.iter().any(|key| *key == PLUGIN_STATS.name) {
                entries.push(computed_entry(&PLUGIN_STATS, plugins::stats(&broker.edge.plugins)));
            }
            if requested.iter().any(|key| *key == REJECTED_PRODUCERS.name) {
                entries.push(computed_entry(&REJECTED_PRODUCERS, broker.edge.plugins.rejected().to_json()));
            }
            Ok(entries)
        }
        ConfigResourceType::BrokerLogger => {
            check_broker(broker, &resource.resource_name)?;
            Ok(Vec::new())
        }
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => Ok(Vec::new()),
    }
}

/// Checks the name of a broker resource: it must be this broker's node id.
pub(super) fn check_broker(broker: &Broker, name: &str) -> Result<(), ApiError> {
    if name.parse() == Ok(broker.config.node_id) {
        return Ok(());
    }
    let message = format!("Unexpected broker id, expected {}, but received {name}", broker.config.node_id);
    Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
}

/// Returns every config of a topic that sets `overrides`.
pub(super) fn topic_entries<'a>(
    broker: &'a Broker,
    image: &'a MetadataImage,
    overrides: &'a TopicOverrides,
) -> impl Iterator<Item = Entry> + 'a {
    let shown = all_topic_keys().filter(|key| !key.is_internal() || overrides.contains_key(key.name));
    shown.map(|key| {
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(key.name) {
            synonyms.push((key.name.to_owned(), Some(value.clone()), Source::Topic));
        }
        for &(name, _) in key.broker_synonyms {
            synonyms.extend(set_synonyms(broker, image, name));
        }
        // The default is shown under the broker's key that sets it, in that key's unit.
        let broker_default = |&(name, _): &(&'static str, i64)| Some((name, broker_key(name)?.default?));
        let default = key.broker_synonyms.iter().find_map(broker_default);
        let (name, text) = default.map_or((key.name, key.default), |(name, text)| (name, Some(text)));
        synonyms.push((name.to_owned(), text.map(str::to_owned), Source::Default));
        let explicit = |name: &str| set_synonyms(broker, image, name).next()?.1;
        let value = overrides.get(key.name).cloned().or_else(|| inherited(key, &explicit));
        Entry { key, value, source: synonyms[0].2, synonyms, read_only: false }
    })
}

/// Returns the configs that are set for all brokers while they run.
fn default_entries(broker: &Broker) -> Vec<Entry> {
    let image = broker.metadata.image();
    let set = image.broker_configs(None).into_iter().flatten();
    let entry = |(name, value): (&String, &String)| {
        let (key, source) = (broker_key(name)?, Source::AllBrokers);
        let synonyms = vec![(name.clone(), Some(value.clone()), source)];
        Some(Entry { key, value: Some(value.clone()), source, synonyms, read_only: false })
    };
    set.filter_map(entry).collect()
}

fn broker_entry(broker: &Broker, key: &'static Key) -> Entry {
    let mut synonyms: Vec<_> = set_synonyms(broker, &broker.metadata.image(), key.name).collect();
    synonyms.push((key.name.to_owned(), key.default.map(str::to_owned), Source::Default));
    let (_, value, source) = synonyms[0].clone();
    Entry { key, value, source, synonyms, read_only: !is_dynamic(key.name) }
}

/// Returns every source that sets a key of this broker, the one in force first.
fn set_synonyms<'a>(
    broker: &'a Broker,
    image: &'a MetadataImage,
    name: &'a str,
) -> impl Iterator<Item = Synonym> + use<'a> {
    let set = |id: Option<i32>| image.broker_configs(id)?.get(name).map(String::as_str);
    let values = [
        (set(Some(broker.config.node_id)), Source::Broker),
        (set(None), Source::AllBrokers),
        (broker.config.explicit(name), Source::BrokerFile),
    ];
    values.into_iter().filter_map(|(value, source)| Some((name.to_owned(), Some(value?.to_owned()), source)))
}

fn computed_entry(key: &'static Key, value: String) -> Entry {
    let value = Some(value);
    let synonyms = vec![(key.name.to_owned(), value.clone(), Source::Default)];
    Entry { key, value, source: Source::Default, synonyms, read_only: true }
}

impl Entry {
    fn describe(self, with_synonyms: bool, with_words: bool) -> DescribeConfigsResourceResult {
        // A secret is listed without its value.
        let is_sensitive = self.key.kind == Kind::Password;
        let told = |value: Option<String>| value.filter(|_| !is_sensitive).map(Str::from);
        let synonyms = if with_synonyms { self.synonyms } else { Vec::new() };
        let synonyms = synonyms.into_iter().filter(|(_, value, _)| value.is_some());
        let synonyms = synonyms.map(|(name, value, source)| DescribeConfigsSynonym {
            name: Str::from(name),
            value: told(value),
            source: source as i8,
        });
        DescribeConfigsResourceResult {
            name: Str::from_static(self.key.name),
            synonyms: synonyms.collect(),
            value: told(self.value),
            read_only: self.read_only,
            config_source: self.source as i8,
            is_sensitive,
            config_type: self.key.kind as i8,
            documentation: with_words.then(|| Str::from_static(self.key.doc)),
        }
    }
}
