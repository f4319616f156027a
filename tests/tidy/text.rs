//! Splits a file into what users read and what readers of the code read.

use std::path::Path;

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Docs, and string literals of programs: errors, logs, help, configs.
    UserFacing,
    /// Comments, and string literals of tests.
    Comment,
}

/// Returns the texts of a file with their lines.
pub(crate) fn parts(file: &Path, text: &str) -> Vec<(Part, usize, String)> {
    if file.extension().is_some_and(|ending| ending == "md") {
        return prose(text);
    }
    if file.extension().is_none_or(|ending| ending != "rs") {
        return script(text);
    }
    let is_program = is_program(file);
    // clap shows the doc comments of the command line's types.
    let is_help = is_program && file.starts_with("host/cli");
    let tests_from = text.lines().position(|line| line.trim() == "#[cfg(test)]").map_or(usize::MAX, |index| index + 1);
    let mut parts = Vec::new();
    for (token, line, text) in tokens(text) {
        let part = match token {
            Token::Comment if is_help && text.starts_with("///") => Part::UserFacing,
            Token::Comment => Part::Comment,
            Token::Literal if is_program && line < tests_from => Part::UserFacing,
            // What a test compares with is checked where it is written.
            Token::Literal => continue,
        };
        parts.push((part, line, text));
    }
    parts
}

/// Returns whether users see the texts of this file: not those of tests.
fn is_program(file: &Path) -> bool {
    let is_test = file.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name.ends_with("_tests") || name.ends_with("_tests.rs") || name == "tests.rs"
    });
    !is_test && ["host", "sdk", "plugins", "xtask", "examples"].iter().any(|folder| file.starts_with(folder))
}

/// Returns the prose of a page: fenced and indented blocks are code.
fn prose(text: &str) -> Vec<(Part, usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            lines.push((Part::UserFacing, index + 1, line.to_owned()));
        }
    }
    lines
}

/// Returns the comments of a script, a manifest or a module in WAT that take whole lines, and the docstrings of Python.
fn script(text: &str) -> Vec<(Part, usize, String)> {
    let mut is_docstring = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let quotes = line.matches("\"\"\"").count();
        let is_comment = ["#", "//", "/*", "* ", ";;"].iter().any(|marker| line.starts_with(marker));
        if is_comment || is_docstring || line.starts_with("\"\"\"") {
            lines.push((Part::Comment, index + 1, line.to_owned()));
        }
        is_docstring ^= quotes % 2 == 1;
    }
    lines
}

/// What a lexer of Rust finds that is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Comment,
    Literal,
}

/// Returns the comments and the string literals of Rust code, line by line.
fn tokens(code: &str) -> Vec<(Token, usize, String)> {
    let mut tokens = Vec::new();
    // The number of hashes that end the literal that is open.
    let mut open: Option<Option<usize>> = None;
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        loop {
            if let Some(hashes) = open {
                let (inside, after) = literal_end(rest, hashes);
                if inside.contains(' ') {
                    tokens.push((Token::Literal, index + 1, inside.to_owned()));
                }
                let Some(after) = after else { break };
                (open, rest) = (None, after);
            }
            let Some(at) = rest.find(['"', '/', '\'', 'r']) else { break };
            let from = &rest[at..];
            let is_word =
                rest[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_');
            if from.starts_with("//") {
                tokens.push((Token::Comment, index + 1, from.to_owned()));
                break;
            }
            let raw = from.strip_prefix('r').filter(|_| !is_word).map(|from| from.trim_start_matches('#'));
            if let Some(inside) = raw.and_then(|raw| raw.strip_prefix('"')) {
                (open, rest) = (Some(Some(from.len() - inside.len() - 2)), inside);
            } else if let Some(inside) = from.strip_prefix('"') {
                (open, rest) = (Some(None), inside);
            } else if let Some(after) = ["'\"'", "'\\\"'"].iter().find_map(|quote| from.strip_prefix(quote)) {
                rest = after;
            } else {
                rest = &from[1..];
            }
        }
    }
    tokens
}

/// Splits a line at the end of the literal that it is inside of. The second part is none if the literal goes on.
fn literal_end(line: &str, hashes: Option<usize>) -> (&str, Option<&str>) {
    let Some(hashes) = hashes else {
        let mut escaped = false;
        for (at, character) in line.char_indices() {
            if character == '"' && !escaped {
                return (&line[..at], Some(&line[at + 1..]));
            }
            escaped = character == '\\' && !escaped;
        }
        return (line, None);
    };
    let end = format!("\"{}", "#".repeat(hashes));
    line.split_once(&end).map_or((line, None), |(inside, after)| (inside, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_splits_into_comments_and_literals() {
        let code =
            "let url = \"http://a host\"; // why\nerror!(\"two \\\n    words\", r#\"a \"b\" c\"#, '\"', \"and more\");";
        let found: Vec<_> = tokens(code).into_iter().map(|token| (token.0, token.1, token.2)).collect();
        let literal = |line, text: &str| (Token::Literal, line, text.to_owned());
        let expected = [
            literal(1, "http://a host"),
            (Token::Comment, 1, "// why".to_owned()),
            literal(2, "two \\"),
            literal(3, "    words"),
            literal(3, "a \"b\" c"),
            literal(3, "and more"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_of_scripts_are_found() {
        let text = "import x\n\"\"\"One.\nTwo.\"\"\"\nx = 1  # three\n# Four.\n";
        let found: Vec<_> = parts(Path::new("tests/a.py"), text).into_iter().map(|(_, line, _)| line).collect();
        assert_eq!(found, [2, 3, 5]);
    }

    #[test]
    fn code_blocks_of_a_page_are_left_out() {
        let lines: Vec<_> = prose("text\n```\ncode\n```\n    indented\nmore").into_iter().map(|part| part.2).collect();
        assert_eq!(lines, ["text", "more"]);
    }
}
