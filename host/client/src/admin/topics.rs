//! Topics and their configs.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterableConfig,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::Admin;
use crate::consumer::config::IsolationLevel;
use crate::consumer::offsets::{self, OffsetAndTimestamp};
use crate::consumer::record::TopicPartition;
use crate::error::Error;
use crate::net::{Lane, Metadata, Topic};

/// The resource type of topics in requests about configs.
pub(super) const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// The first version of DeleteTopics with topic ids.
const FIRST_WITH_STATES: i16 = 6;

/// Lets the broker choose a number.
const CREATE_DEFAULT: i32 = -1;

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// The number of partitions; `None` is the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// The replication factor; `None` is the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Configs that differ from the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// Whether it is an internal topic.
    pub internal: bool,
    /// The number of partitions.
    pub partitions: usize,
}

/// A topic with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id; all zeros where the cluster has none.
    pub id: Uuid,
    /// Whether it is an internal topic.
    pub internal: bool,
    /// By number.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: i32,
    /// The broker that leads it, if one does.
    pub leader: Option<i32>,
    /// Rises with every change of the leader; -1 where it is not known.
    pub leader_epoch: i32,
    /// The brokers that should have a copy.
    pub replicas: Vec<i32>,
    /// The brokers whose copy is complete.
    pub in_sync: Vec<i32>,
}

/// A config of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// The value; `None` where it is secret.
    pub value: Option<String>,
    /// Whether it was set on the topic itself, rather than inherited.
    pub overridden: bool,
    /// Whether it cannot be changed.
    pub read_only: bool,
}

impl Admin {
    /// Creates topics and returns their ids, zeros from an old broker.
    ///
    /// # Errors
    /// The first rejected topic, with the broker's message.
    pub async fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Uuid>, Error> {
        let config = |(name, value): (&String, &String)| CreatableTopicConfig {
            name: Str::from(name.as_str()),
            value: Some(Str::from(value.as_str())),
        };
        let creatable = |topic: &NewTopic| CreatableTopic {
            name: Str::from(topic.name.as_str()),
            num_partitions: topic.partitions.unwrap_or(CREATE_DEFAULT),
            replication_factor: topic.replication_factor.unwrap_or(CREATE_DEFAULT as i16),
            configs: topic.configs.iter().map(config).collect(),
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: topics.iter().map(creatable).collect(), ..CreateTopicsRequest::default() };
        let response = self
            .ask_controller("the creation of topics", &request, |response| {
                response.topics.iter().try_for_each(|topic| {
                    let what = || format!("create topic {}", &*topic.name);
                    Error::check(what, topic.error_code, topic.error_message.as_deref())
                })
            })
            .await?;
        Ok(response.topics.iter().map(|topic| topic.topic_id).collect())
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// The first rejected topic, with the broker's message.
    pub async fn delete_topics(&self, names: &[String]) -> Result<(), Error> {
        let mut retry = self.retry("the deletion of topics");
        while retry.attempt(self.delete_once(names)).await?.is_none() {}
        Ok(())
    }

    async fn delete_once(&self, names: &[String]) -> Result<(), Error> {
        let connection = self.cluster.any().await?;
        let timeout = self.cluster.config().request_timeout;
        let mut request = DeleteTopicsRequest {
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            ..DeleteTopicsRequest::default()
        };
        let names = names.iter().map(|name| Str::from(name.as_str()));
        if connection.version::<DeleteTopicsRequest>()? >= FIRST_WITH_STATES {
            request.topics = names.map(|name| DeleteTopicState { name: Some(name), topic_id: Uuid::nil() }).collect();
        } else {
            request.topic_names = names.collect();
        }
        let response = self.ask_controller_once(&request).await?;
        response.responses.iter().try_for_each(|topic| {
            let what = || format!("delete topic {}", topic.name.as_deref().unwrap_or_default());
            Error::check(what, topic.error_code, topic.error_message.as_deref())
        })
    }

    /// Returns all topics, by name.
    ///
    /// # Errors
    /// No broker can be reached.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>, Error> {
        let metadata = self.metadata_of(None).await?;
        let mut listings: Vec<TopicListing> = Vec::new();
        for (name, topic) in &metadata.topics {
            if let Ok(topic) = topic {
                let (name, partitions) = (name.to_string(), topic.partitions.len());
                listings.push(TopicListing { name, internal: topic.internal, partitions });
            }
        }
        listings.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listings)
    }

    /// Returns the topics with these names, in that order.
    ///
    /// # Errors
    /// One of them does not exist.
    pub async fn describe_topics(&self, names: &[String]) -> Result<Vec<TopicDescription>, Error> {
        let wanted: Vec<Arc<str>> = names.iter().map(|name| name.as_str().into()).collect();
        let metadata = self.metadata_of(Some(&wanted)).await?;
        let describe = |name: &Arc<str>| {
            let code = match metadata.topics.get(name) {
                Some(Ok(topic)) => return Ok(description(name, topic)),
                Some(Err(code)) => *code,
                None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            };
            let message = (code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).then_some("no topic has that name");
            Err(Error::broker(format!("describe topic {name}"), code, message))
        };
        wanted.iter().map(describe).collect()
    }

    async fn metadata_of(&self, names: Option<&[Arc<str>]>) -> Result<Metadata, Error> {
        let mut retry = self.retry("the description of topics");
        loop {
            if let Some(response) = retry.attempt(self.cluster.fetch_metadata(names, false)).await? {
                return Ok(Metadata::empty().updated(response));
            }
        }
    }

    /// Returns the configs of a topic, by name.
    ///
    /// # Errors
    /// The topic does not exist, or access is denied.
    pub async fn describe_configs(&self, topic: &str) -> Result<Vec<ConfigEntry>, Error> {
        let resource = DescribeConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: Str::from(topic),
            configuration_keys: None,
        };
        self.describe(resource, None, &format!("the configs of topic {topic}")).await
    }

    /// Returns configs of a broker, by name: those in `names`, or all if it is empty.
    ///
    /// # Errors
    /// There is no such broker, or access is denied.
    pub async fn describe_broker_configs(&self, node: i32, names: &[&str]) -> Result<Vec<ConfigEntry>, Error> {
        let names = names.iter().map(|name| Str::from(*name)).collect::<Vec<_>>();
        let resource = DescribeConfigsResource {
            resource_type: BROKER_RESOURCE,
            resource_name: Str::from(node.to_string()),
            configuration_keys: (!names.is_empty()).then_some(names),
        };
        self.describe(resource, Some(node), &format!("the configs of broker {node}")).await
    }

    /// Describes a resource, at any broker or at `node`.
    async fn describe(
        &self,
        resource: DescribeConfigsResource,
        node: Option<i32>,
        what: &str,
    ) -> Result<Vec<ConfigEntry>, Error> {
        let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
        let response = self.describe_configs_by(&request, node, what).await?;
        let entries = response.results.iter().flat_map(|result| &result.configs);
        let mut entries: Vec<ConfigEntry> = entries
            .map(|entry| ConfigEntry {
                name: entry.name.to_string(),
                value: entry.value.as_deref().map(String::from),
                // Source 1: the topic's own.
                overridden: entry.config_source == 1,
                read_only: entry.read_only,
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Sends a request about configs to any broker, or to `node`.
    pub(super) async fn describe_configs_by(
        &self,
        request: &DescribeConfigsRequest,
        node: Option<i32>,
        what: &str,
    ) -> Result<DescribeConfigsResponse, Error> {
        let mut retry = self.retry(what);
        loop {
            let attempt = async {
                let response = match node {
                    None => self.cluster.ask_any(request).await?,
                    Some(node) => self.cluster.ask(node, Lane::Main, request).await?,
                };
                response.results.iter().try_for_each(|result| {
                    Error::check(|| format!("describe {what}"), result.error_code, result.error_message.as_deref())
                })?;
                Ok(response)
            };
            if let Some(response) = retry.attempt(attempt).await? {
                return Ok(response);
            }
        }
    }

    /// Sets configs of a topic; `None` resets one to its default. Other configs stay.
    ///
    /// # Errors
    /// The broker rejects a key or a value; nothing is changed then.
    pub async fn alter_configs(&self, topic: &str, changes: &BTreeMap<String, Option<String>>) -> Result<(), Error> {
        self.alter(TOPIC_RESOURCE, topic, changes, &format!("change the configs of topic {topic}")).await
    }

    /// Sets configs of a broker that runs; `None` resets one to that of its file. Other configs stay.
    ///
    /// # Errors
    /// There is no such broker, or it cannot change a key while it runs; nothing is changed then.
    pub async fn alter_broker_configs(
        &self,
        node: i32,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Error> {
        self.alter(BROKER_RESOURCE, &node.to_string(), changes, &format!("change the configs of broker {node}")).await
    }

    async fn alter(
        &self,
        resource_type: i8,
        name: &str,
        changes: &BTreeMap<String, Option<String>>,
        what: &str,
    ) -> Result<(), Error> {
        let config = |(name, value): (&String, &Option<String>)| IncrementalAlterableConfig {
            name: Str::from(name.as_str()),
            config_operation: if value.is_some() { SET } else { DELETE },
            value: value.as_deref().map(Str::from),
        };
        let configs = changes.iter().map(config).collect();
        let resource = IncrementalAlterConfigsResource { resource_type, resource_name: Str::from(name), configs };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        self.ask_controller("the change of configs", &request, |response| {
            response.responses.iter().try_for_each(|result| {
                Error::check(|| what.to_owned(), result.error_code, result.error_message.as_deref())
            })
        })
        .await
        .map(drop)
    }

    /// Returns the offsets at these times, in milliseconds since the epoch: -2 is the offset of the oldest record, -1
    /// that of the next record to be stored.
    ///
    /// # Errors
    /// A partition does not exist, or its leader cannot be reached.
    pub async fn list_offsets(
        &self,
        times: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, Error> {
        offsets::list(&self.cluster, times, IsolationLevel::ReadUncommitted, self.limit).await
    }
}

fn description(name: &str, topic: &Topic) -> TopicDescription {
    let partitions = topic.partitions.iter().zip(0..).map(|(partition, number)| PartitionDescription {
        partition: number,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        in_sync: partition.in_sync.clone(),
    });
    TopicDescription { name: name.to_owned(), id: topic.id, internal: topic.internal, partitions: partitions.collect() }
}
