//! Changing the configs of topics and brokers.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ClusterError, ControllerError, TopicDraft, TopicRules};
use crate::{MetadataImage, MetadataRecord, TopicConfigs};

/// A change of the configs of a topic or a broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ConfigChange {
    /// Replaces all of them: a config that is not named returns to its default.
    Replace(TopicConfigs),
    /// Changes single ones; all others stay.
    Edit(Vec<ConfigEdit>),
}

/// A change of one config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEdit {
    /// The name of the config.
    pub name: String,
    /// What to do with it.
    pub operation: ConfigOperation,
}

/// The operations of IncrementalAlterConfigs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigOperation {
    /// Sets the value.
    Set(String),
    /// Returns to the default.
    Delete,
    /// Adds elements to a list.
    Append(String),
    /// Removes elements from a list.
    Subtract(String),
}

/// Changes the configs of a topic.
pub(crate) fn alter<R: TopicRules>(
    image: &MetadataImage,
    name: &str,
    change: &ConfigChange,
    rules: &R,
) -> Result<Vec<MetadataRecord>, R::Error> {
    let topic = image.topic(name).ok_or(ControllerError::UnknownTopic)?;
    let configs = match change {
        ConfigChange::Replace(configs) => configs.clone(),
        ConfigChange::Edit(edits) => edited(image, &topic.configs, edits, rules)?,
    };
    let partitions = topic.partition_count();
    rules.check(image, &TopicDraft { name, partitions, before: Some(&topic.configs), configs: &configs })?;
    let id = topic.id;
    let changed = |name, value| MetadataRecord::TopicConfigChanged { id, name, value };
    Ok(difference(&topic.configs, &configs).map(|(name, value)| changed(name, value)).collect())
}

/// Changes the configs of a broker that runs, or for `None` the defaults of all brokers.
pub(crate) fn alter_broker<R: TopicRules>(
    image: &MetadataImage,
    broker: Option<i32>,
    change: &ConfigChange,
    rules: &R,
) -> Result<Vec<MetadataRecord>, R::Error> {
    if let Some(id) = broker.filter(|id| image.broker(*id).is_none()) {
        return Err(ClusterError::NoSuchBroker(id).into());
    }
    let before = image.broker_configs(broker).cloned().unwrap_or_default();
    let configs = match change {
        ConfigChange::Replace(configs) => configs.clone(),
        ConfigChange::Edit(edits) => edited(image, &before, edits, rules)?,
    };
    rules.check_broker(broker, &configs)?;
    let changed = |name, value| MetadataRecord::BrokerConfigChanged { broker, name, value };
    Ok(difference(&before, &configs).map(|(name, value)| changed(name, value)).collect())
}

/// Records that batches of a topic may need a plug-in to be read.
pub(crate) fn add_decoder(
    image: &MetadataImage,
    id: Uuid,
    digest: &str,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    let topic = image.topic_by_id(id).ok_or(ControllerError::UnknownTopic)?;
    if topic.decoders.contains(digest) {
        return Ok(Vec::new());
    }
    Ok(vec![MetadataRecord::DecoderNeeded { id, digest: digest.to_owned() }])
}

fn edited<R: TopicRules>(
    image: &MetadataImage,
    before: &TopicConfigs,
    edits: &[ConfigEdit],
    rules: &R,
) -> Result<TopicConfigs, ControllerError> {
    let mut configs = before.clone();
    for ConfigEdit { name, operation } in edits {
        let list = |configs: &TopicConfigs| {
            if !rules.is_list(name) {
                return Err(ControllerError::NotAList(name.clone()));
            }
            let current = configs.get(name).cloned().or_else(|| rules.inherited(image, name));
            Ok(elements(&current.unwrap_or_default()))
        };
        match operation {
            ConfigOperation::Delete => drop(configs.remove(name)),
            ConfigOperation::Set(value) => drop(configs.insert(name.clone(), value.clone())),
            ConfigOperation::Append(value) => {
                let mut joined = list(&configs)?;
                for element in elements(value) {
                    if !joined.contains(&element) {
                        joined.push(element);
                    }
                }
                configs.insert(name.clone(), joined.join(","));
            }
            ConfigOperation::Subtract(value) => {
                let removed = elements(value);
                let mut left = list(&configs)?;
                left.retain(|element| !removed.contains(element));
                configs.insert(name.clone(), left.join(","));
            }
        }
    }
    Ok(configs)
}

/// Splits a list as Kafka does: at commas, without the white space around the elements.
fn elements(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.is_empty() { Vec::new() } else { text.split(',').map(|element| element.trim().to_owned()).collect() }
}

/// Returns the configs that differ, each with its new value; `None` if it is not set any more.
fn difference<'a>(
    before: &'a TopicConfigs,
    after: &'a TopicConfigs,
) -> impl Iterator<Item = (String, Option<String>)> + 'a {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
    let set = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    gone.chain(set.map(|(name, value)| (name.clone(), Some(value.clone()))))
}
