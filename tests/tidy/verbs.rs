//! Finds doc comments of functions that do not begin with a verb in the third person, such as "Returns".

/// Words that end in "s" and are not such a verb.
const NOT_VERBS: &[&str] = &["As", "Is", "Its", "Has", "This", "Plus", "Always", "Besides", "Unless", "Less"];

/// Returns the line and the first word of each doc comment of a function that does not begin with a verb. Tests are
/// left out: the doc comment of a test states what holds.
pub(crate) fn without_verb(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut doc: Option<(usize, &str)> = None;
    let mut is_test = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            doc = doc.or(Some((index + 1, comment)));
            continue;
        }
        if line.starts_with("#[") {
            is_test |= line.contains("test");
            continue;
        }
        if let Some((number, comment)) = doc.take()
            && is_function(line)
            && !is_test
        {
            let word = first_word(comment);
            if !is_verb(word) {
                found.push((number, word.to_owned()));
            }
        }
        is_test = false;
    }
    found
}

/// Returns whether a line begins a function.
fn is_function(line: &str) -> bool {
    let words = line.split_whitespace().map(|word| word.split('(').next().unwrap_or_default());
    let mut words = words.skip_while(|word| matches!(*word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\""));
    words.next() == Some("fn")
}

fn first_word(comment: &str) -> &str {
    comment.split_whitespace().next().unwrap_or_default().trim_end_matches([',', '.', ':', ';'])
}

fn is_verb(word: &str) -> bool {
    let is_word = word.chars().all(|character| character.is_ascii_alphabetic() || character == '-');
    is_word && word.ends_with('s') && word.starts_with(char::is_uppercase) && !NOT_VERBS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::without_verb;

    #[test]
    fn only_functions_are_checked() {
        let text = "/// Returns it.\npub(crate) const fn good() {}\n\n\
                    /// The sum.\n/// Returns it.\n#[must_use]\nfn bad() {}\n\n\
                    /// A type.\nstruct Type;\n\n\
                    /// It holds.\n#[test]\nfn test() {}\n\n\
                    /// As before.\npub async fn worse() {}\n";
        assert_eq!(without_verb(text), [(4, "The".to_owned()), (16, "As".to_owned())]);
    }
}
