//! The stages that a topic wants its applications to run, at a cluster that takes no such options: they are
//! kept in the cluster's store of plug-ins, by the same names.

use std::collections::BTreeMap;

use anyhow::Result;
use millstream_client::plugins::PluginStore;
use millstream_client::{Admin, Error, NewTopic};
use millstream_registry::format::STAGE_CONFIGS;

use crate::cluster::Cluster;
use crate::topic;

/// Creates a topic; what its cluster does not take goes to the store.
pub(crate) async fn create(admin: &Admin, cluster: &Cluster, mut topic: NewTopic) -> Result<()> {
    let refused = match admin.create_topics(std::slice::from_ref(&topic)).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let all = std::mem::take(&mut topic.configs);
    let (stages, configs) = all.into_iter().partition(|(key, _)| STAGE_CONFIGS.contains(&key.as_str()));
    topic.configs = configs;
    let stages: Vec<_> = BTreeMap::into_iter(stages).map(|(key, stage)| (key, Some(stage))).collect();
    if !is_unknown(&refused, stages.iter().map(|(key, _)| key)) {
        return Err(refused.into());
    }
    admin.create_topics(std::slice::from_ref(&topic)).await?;
    set(cluster, &topic.name, &stages).await
}

/// Changes the configs of a topic; what its cluster does not take goes to the store.
pub(crate) async fn alter(
    admin: &Admin,
    cluster: &Cluster,
    name: &str,
    changes: BTreeMap<String, Option<String>>,
) -> Result<()> {
    let (stages, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        changes.clone().into_iter().partition(|(key, _)| STAGE_CONFIGS.contains(&key.as_str()));
    match admin.alter_configs(name, &changes).await {
        Ok(()) => {
            // Apache Kafka takes back without a word what it has never heard of.
            let gone = stages.into_iter().filter(|(_, stage)| stage.is_none()).collect::<Vec<_>>();
            return if gone.is_empty() { Ok(()) } else { unset(cluster, name, &gone).await };
        }
        Err(error) if !is_unknown(&error, stages.keys()) => return Err(error.into()),
        Err(_) => {}
    }
    if !others.is_empty() {
        admin.alter_configs(name, &others).await?;
    }
    set(cluster, name, &stages.into_iter().collect::<Vec<_>>()).await
}

/// Forgets the stages of topics that are gone, for those that come after them by the same names.
pub(crate) async fn forget(cluster: &Cluster, names: &[String]) -> Result<()> {
    let store = PluginStore::new(topic::client_config(cluster)?)?;
    let image = store.image().await?;
    for name in names {
        if let Some(stages) = image.topic(name) {
            let none: Vec<_> = stages.keys().map(|key| (key.clone(), None)).collect();
            store.set_topic_stages(name, &none).await?;
        }
    }
    store.close().await;
    Ok(())
}

async fn set(cluster: &Cluster, name: &str, stages: &[(String, Option<String>)]) -> Result<()> {
    let store = PluginStore::new(topic::client_config(cluster)?)?;
    let outcome = store.set_topic_stages(name, stages).await;
    store.close().await;
    Ok(outcome?)
}

/// Removes what the store has of these.
async fn unset(cluster: &Cluster, name: &str, stages: &[(String, Option<String>)]) -> Result<()> {
    let store = PluginStore::new(topic::client_config(cluster)?)?;
    if store.image().await?.topic(name).is_some() {
        store.set_topic_stages(name, stages).await?;
    }
    store.close().await;
    Ok(())
}

/// Whether a cluster refuses one of these options because it has never heard of it.
fn is_unknown<'k>(error: &Error, mut keys: impl Iterator<Item = &'k String>) -> bool {
    let Error::Broker { message: Some(message), .. } = error else { return false };
    message.to_lowercase().contains("unknown topic config name") && keys.any(|key| message.contains(key.as_str()))
}
