//! Views: topics that show the records of another topic that pass a filter. Only Millstream has them.

use std::collections::BTreeMap;

use millstream_wire::Str;
use millstream_wire::messages::{DescribeConfigsRequest, DescribeConfigsResource};
use uuid::Uuid;

use super::topics::TOPIC_RESOURCE;
use super::{Admin, NewTopic};
use crate::error::Error;

const VIEW_OF: &str = "view.of";
const FILTER: &str = "stage.filter";
const FAILURE_POLICY: &str = "stage.filter.failure.policy";
const DEAD_LETTER_TOPIC: &str = "stage.dead.letter.topic";

/// A view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Its source topic, which may be a view itself.
    pub of: String,
    /// The chain of filters; `None` shows all records.
    pub filter: Option<String>,
    /// How to handle a record for which the filter fails: `skip`, `pass`, `fail` or `dead-letter`; `None` is `skip`.
    pub failure_policy: Option<String>,
    /// The topic for such records with `dead-letter`.
    pub dead_letter_topic: Option<String>,
}

impl Admin {
    /// Creates a view. It has the partitions of its source.
    ///
    /// # Errors
    /// The broker rejects it, with the broker's message.
    pub async fn create_view(&self, view: &View) -> Result<Uuid, Error> {
        let set = |name: &str, value: &Option<String>| Some((name.to_owned(), value.clone()?));
        let configs = [
            Some((VIEW_OF.to_owned(), view.of.clone())),
            set(FILTER, &view.filter),
            set(FAILURE_POLICY, &view.failure_policy),
            set(DEAD_LETTER_TOPIC, &view.dead_letter_topic),
        ];
        let configs = configs.into_iter().flatten().collect();
        let topic = NewTopic { name: view.name.clone(), configs, ..NewTopic::default() };
        let created = self.create_topics(&[topic]).await?;
        Ok(created.first().copied().unwrap_or_default())
    }

    /// Returns all views, by name.
    ///
    /// # Errors
    /// No broker can be reached.
    pub async fn list_views(&self) -> Result<Vec<View>, Error> {
        let topics = self.list_topics().await?;
        let names: Vec<String> = topics.into_iter().map(|topic| topic.name).collect();
        self.views_among(&names).await
    }

    /// Returns those of the topics that are views.
    ///
    /// # Errors
    /// A topic does not exist, or no broker can be reached.
    pub async fn views_among(&self, names: &[String]) -> Result<Vec<View>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let keys = [VIEW_OF, FILTER, FAILURE_POLICY, DEAD_LETTER_TOPIC].map(Str::from_static);
        let resources = names.iter().map(|name| DescribeConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: Str::from(name.as_str()),
            configuration_keys: Some(keys.to_vec()),
        });
        let request = DescribeConfigsRequest { resources: resources.collect(), ..DescribeConfigsRequest::default() };
        let response =
            self.describe_configs_by(&request, None, &format!("the configs of {}", names.join(", "))).await?;
        let views = response.results.iter().filter_map(|result| {
            let set = result.configs.iter().filter_map(|config| Some((&*config.name, config.value.as_deref()?)));
            let set: BTreeMap<&str, &str> = set.filter(|(_, value)| !value.is_empty()).collect();
            let owned = |name: &str| set.get(name).map(|value| (*value).to_owned());
            Some(View {
                name: result.resource_name.to_string(),
                of: owned(VIEW_OF)?,
                filter: owned(FILTER),
                failure_policy: owned(FAILURE_POLICY),
                dead_letter_topic: owned(DEAD_LETTER_TOPIC),
            })
        });
        Ok(views.collect())
    }
}
