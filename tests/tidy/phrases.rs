//! The phrases that are not used, and what to say instead.

/// A banned phrase that a text contains.
pub(crate) struct Finding {
    pub(crate) phrase: &'static str,
    pub(crate) instead: &'static str,
}

/// Each phrase in lower case, with its replacement. A `*` at the end matches any ending of the word.
const BANNED: &[(&str, &str)] = &[
    // People, where the subject is a thing of the code.
    ("whoever", "the thing that does it: the client, the caller"),
    ("nobody", "\"no client\", \"nothing\""),
    ("somebody", "the thing that does it: the client, the caller"),
    ("anybody", "the thing that does it: any client"),
    ("everybody", "\"every client\", \"all\""),
    // The field's words.
    ("answer*", "response, respond"),
    ("refus*", "reject, rejection"),
    ("look-up*", "lookup"),
    ("time-out*", "timeout, time out"),
    ("come again", "retry"),
    ("comes again", "retries"),
    ("came again", "retried"),
    ("try again", "retry"),
    ("tries again", "retries"),
    ("tried again", "retried"),
    ("take back", "roll back"),
    ("taken back", "rolled back"),
    ("takes back", "rolls back"),
    ("gone back", "rolled back"),
    ("goes back to", "rolls back to"),
    ("letters of", "dead letters of"),
    ("the letters", "the dead letters"),
    ("its letters", "its dead letters"),
    ("in words", "a message"),
    ("with words", "a message"),
    // Reports.
    ("is told", "\"logs\", \"reports\", \"receives\""),
    ("are told", "\"receive\""),
    ("was told", "\"received\""),
    // Quantity and negation.
    ("so much", "the amount"),
    ("so many", "the number"),
    ("is no error", "\"is not an error\""),
    ("is none of", "\"is not one of\""),
    ("of its own accord", "by itself"),
    ("from here on", "\"from now on\", \"after this\""),
    ("no other than", "only"),
    ("lies in wait", "is stored"),
    ("without further ado", "directly"),
    ("holds up", "delays, blocks"),
    ("hold up", "delay, block"),
];

/// Returns the banned phrases in a text, each as often as it occurs.
pub(crate) fn findings(text: &str) -> impl Iterator<Item = Finding> {
    let lower = plain(text);
    BANNED.iter().flat_map(move |&(phrase, instead)| {
        let count = occurrences(&lower, phrase);
        std::iter::repeat_n((phrase, instead), count).map(|(phrase, instead)| Finding { phrase, instead })
    })
}

/// Returns the text in lower case without what stands in backticks.
fn plain(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Counts a phrase between word boundaries.
fn occurrences(text: &str, phrase: &str) -> usize {
    let (stem, any_ending) = phrase.strip_suffix('*').map_or((phrase, false), |stem| (stem, true));
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(stem)
        .filter(|(at, _)| {
            // "dead letters of" is what the rule asks for.
            if text[..*at].ends_with("dead ") {
                return false;
            }
            let before = text[..*at].chars().next_back();
            let after = text[at + stem.len()..].chars().next();
            !before.is_some_and(is_word) && (any_ending || !after.is_some_and(is_word))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        findings(text).count()
    }

    #[test]
    fn phrases_are_found_between_words() {
        assert_eq!(count("The broker answers, and the client is told."), 2);
        assert_eq!(count("Nobody answered."), 2);
        assert_eq!(count("dead letters are records, `answer` is code, diffuse is a word"), 0);
        assert_eq!(count("its letters go there"), 1);
        assert_eq!(count("letters of a topic, and dead letters of another"), 1);
    }
}
