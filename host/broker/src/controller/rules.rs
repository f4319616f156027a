//! The rules for topics beyond the image: configs, views, dead letter topics, the topic of the plug-ins.

use millstream_wire::ErrorCode;

use crate::config::{
    BrokerConfig, Kind, check_dynamic, check_dynamic_together, check_dynamic_value, inherited, topic_key,
};
use crate::edge::dead_letter_rules;
use crate::edge::plugins;
use crate::edge::view::rules as views;
use crate::error::ApiError;
use millstream_metadata::controller::{TopicDraft, TopicRules};
use millstream_metadata::{BrokerConfigs, MetadataImage, TopicImage};

/// The rules of a broker with this configuration.
pub(crate) struct BrokerRules<'a> {
    pub(crate) config: &'a BrokerConfig,
}

impl TopicRules for BrokerRules<'_> {
    type Error = ApiError;

    fn default_partitions(&self) -> i32 {
        self.config.num_partitions
    }

    fn default_replication_factor(&self) -> i32 {
        self.config.default_replication_factor
    }

    fn inherited(&self, config: &str) -> Option<String> {
        inherited(topic_key(config)?, &|name| self.config.explicit(name).map(str::to_owned))
    }

    fn is_list(&self, config: &str) -> bool {
        topic_key(config).is_some_and(|key| key.kind == Kind::List)
    }

    fn check(&self, image: &MetadataImage, draft: &TopicDraft<'_>) -> Result<(), ApiError> {
        let config = self.config.topic_config(draft.configs)?;
        plugins::check_cleanup(draft.name, config.compact && !config.delete).map_err(policy_violation)?;
        views::check(image, draft.name, draft.partitions, draft.before, draft.configs)?;
        dead_letter_rules::check(self.config, image, draft, &config)
    }

    fn check_broker(&self, configs: &BrokerConfigs) -> Result<(), ApiError> {
        check_dynamic(configs).map_err(|error| ApiError::new(ErrorCode::INVALID_REQUEST, error.to_string()))?;
        for (name, value) in configs {
            check_dynamic_value(name, value)?;
        }
        Ok(check_dynamic_together(configs)?)
    }

    fn check_partitions(&self, name: &str, count: i32) -> Result<(), ApiError> {
        plugins::check_partitions(name, count).map_err(policy_violation)
    }

    fn check_deletion(&self, image: &MetadataImage, topic: &TopicImage) -> Result<(), ApiError> {
        if topic.name == plugins::TOPIC {
            let message =
                format!("{} keeps the broker's plug-ins and cannot be deleted; delete plug-ins instead", topic.name);
            return Err(policy_violation(message));
        }
        views::check_deletion(image, &topic.name)
    }
}

fn policy_violation(message: String) -> ApiError {
    ApiError::new(ErrorCode::POLICY_VIOLATION, message)
}
