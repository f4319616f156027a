//! Configs that name a topic's stages, on a cluster that does not know them (Apache Kafka). They are stored in the
//! cluster's registry of plug-ins, under the same names.

use std::collections::BTreeMap;

use anyhow::Result;
use millstream_client::{Admin, Error, NewTopic};
use millstream_registry::format::STAGE_CONFIGS;

use crate::connection::Connection;

/// Creates a topic. Configs that its cluster does not know go to the registry.
pub(crate) async fn create(admin: &Admin, connection: &Connection, mut topic: NewTopic) -> Result<()> {
    let rejection = match admin.create_topics(std::slice::from_ref(&topic)).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let all = std::mem::take(&mut topic.configs);
    let (stages, configs) = all.into_iter().partition(|(key, _)| STAGE_CONFIGS.contains(&key.as_str()));
    topic.configs = configs;
    let stages: Vec<_> = BTreeMap::into_iter(stages).map(|(key, stage)| (key, Some(stage))).collect();
    if !is_unknown(&rejection, stages.iter().map(|(key, _)| key)) {
        return Err(rejection.into());
    }
    admin.create_topics(std::slice::from_ref(&topic)).await?;
    set(connection, &topic.name, &stages).await
}

/// Changes the configs of a topic. Configs that its cluster does not know go to the registry.
pub(crate) async fn alter(
    admin: &Admin,
    connection: &Connection,
    name: &str,
    changes: BTreeMap<String, Option<String>>,
) -> Result<()> {
    let (stages, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        changes.clone().into_iter().partition(|(key, _)| STAGE_CONFIGS.contains(&key.as_str()));
    match admin.alter_configs(name, &changes).await {
        Ok(()) => {
            // Apache Kafka resets an unknown config without an error.
            let gone = stages.into_iter().filter(|(_, stage)| stage.is_none()).collect::<Vec<_>>();
            return if gone.is_empty() { Ok(()) } else { unset(connection, name, &gone).await };
        }
        Err(error) if !is_unknown(&error, stages.keys()) => return Err(error.into()),
        Err(_) => {}
    }
    if !others.is_empty() {
        admin.alter_configs(name, &others).await?;
    }
    set(connection, name, &stages.into_iter().collect::<Vec<_>>()).await
}

/// Removes the stages of deleted topics, so that new topics with the same names do not get them.
pub(crate) async fn forget(connection: &Connection, names: &[String]) -> Result<()> {
    let store = connection.plugin_store()?;
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

async fn set(connection: &Connection, name: &str, stages: &[(String, Option<String>)]) -> Result<()> {
    let store = connection.plugin_store()?;
    let outcome = store.set_topic_stages(name, stages).await;
    store.close().await;
    Ok(outcome?)
}

/// Removes these stages from the registry.
async fn unset(connection: &Connection, name: &str, stages: &[(String, Option<String>)]) -> Result<()> {
    let store = connection.plugin_store()?;
    if store.image().await?.topic(name).is_some() {
        store.set_topic_stages(name, stages).await?;
    }
    store.close().await;
    Ok(())
}

/// Returns whether a cluster rejected one of these configs because it does not know it.
fn is_unknown<'k>(error: &Error, mut keys: impl Iterator<Item = &'k String>) -> bool {
    let Error::Broker { message: Some(message), .. } = error else { return false };
    message.to_lowercase().contains("unknown topic config name") && keys.any(|key| message.contains(key.as_str()))
}
