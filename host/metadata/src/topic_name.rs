//! Kafka's rules for topic names. They also keep a name from leaving the data folder.

/// The longest name: Kafka's limit, which leaves room for the partition number in a file name.
const NAME_MAX: usize = 249;

/// The topic of the metadata itself.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// A text that cannot be the name of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// The name is empty.
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    /// The name means a folder.
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(String),
    /// The name belongs to the metadata itself.
    #[error("Topic name is invalid: '{CLUSTER_METADATA}' is reserved for the broker")]
    Reserved,
    /// The name is too long.
    #[error("Topic name is invalid: the length of a topic name is at most {NAME_MAX} characters")]
    TooLong,
    /// The name has a character that is not allowed.
    #[error(
        "Topic name is invalid: '{}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        .0.escape_debug()
    )]
    BadCharacter(String),
}

/// Checks a name.
///
/// # Errors
/// Names the rule that the name breaks.
pub fn check_name(name: &str) -> Result<(), TopicNameError> {
    match name {
        "" => Err(TopicNameError::Empty),
        "." | ".." => Err(TopicNameError::Dots(name.to_owned())),
        CLUSTER_METADATA => Err(TopicNameError::Reserved),
        _ if name.len() > NAME_MAX => Err(TopicNameError::TooLong),
        _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) => {
            Err(TopicNameError::BadCharacter(name.to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a.b_c-D9", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../a", "a\0b", "é", "a b", &"x".repeat(250), "__cluster_metadata"] {
            let text = check_name(bad).expect_err(bad).to_string();
            assert!(text.starts_with("Topic name is invalid: "), "{text}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = |bad| check_name(bad).expect_err(bad).to_string();
        assert!(text("a b").contains("'a b' contains"), "{}", text("a b"));
        assert!(text("a\x1b[2J").contains(r"'a\u{1b}[2J' contains"), "{}", text("a\x1b[2J"));
    }
}
