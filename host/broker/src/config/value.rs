//! The types of config values and their checks, after Kafka's `ConfigDef`.

use super::throttled::ThrottledReplicas;

/// The type of a value. The numbers are those of DescribeConfigs v3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

/// The allowed values of a type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Valid {
    /// Every value.
    Any,
    /// A number that is not below this one.
    AtLeast(i64),
    /// A number in a closed range.
    Between(i64, i64),
    /// A ratio in a closed range.
    Ratio(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of these words, each at most once.
    ListOf(&'static [&'static str]),
    /// A list of replicas, as in `0:1,0:2`, or `*` for all.
    Replicas,
}

/// The type of a row's values, as the code reads them.
pub(crate) trait ConfigType {
    type Value<'a>;

    /// Parses a value, or Kafka's null. Returns `None` if the text is not a value of this type.
    fn parse(text: Option<&str>) -> Option<Self::Value<'_>>;
}

/// A text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text;

impl ConfigType for Text {
    type Value<'a> = &'a str;

    fn parse(text: Option<&str>) -> Option<&str> {
        text
    }
}

/// The elements of a comma-separated list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List;

impl ConfigType for List {
    type Value<'a> = Vec<&'a str>;

    fn parse(text: Option<&str>) -> Option<Vec<&str>> {
        text.map(list)
    }
}

impl ConfigType for bool {
    type Value<'a> = Self;

    fn parse(text: Option<&str>) -> Option<Self> {
        boolean(text?).ok()
    }
}

/// A value that may be null.
impl<T: ConfigType> ConfigType for Option<T> {
    type Value<'a> = Option<T::Value<'a>>;

    fn parse(text: Option<&str>) -> Option<Option<T::Value<'_>>> {
        match text {
            None => Some(None),
            text => T::parse(text).map(Some),
        }
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {
        $(impl ConfigType for $number {
            type Value<'a> = Self;

            fn parse(text: Option<&str>) -> Option<Self> {
                text?.parse().ok()
            }
        })*
    };
}

numbers!(i16 i32 i64 f64);

/// Checks `text` against the type and the allowed values. The error describes what is expected, without the key.
pub(crate) fn check(kind: Kind, valid: Valid, text: &str) -> Result<(), String> {
    let text = text.trim();
    match kind {
        Kind::Boolean => boolean(text).and_then(|value| one_of(if value { "true" } else { "false" }, valid)),
        Kind::Short => {
            integer(text, i64::from(i16::MIN), i64::from(i16::MAX)).and_then(|number| in_range(number, valid))
        }
        Kind::Int => integer(text, i64::from(i32::MIN), i64::from(i32::MAX)).and_then(|number| in_range(number, valid)),
        Kind::Long => integer(text, i64::MIN, i64::MAX).and_then(|number| in_range(number, valid)),
        Kind::Double => double(text, valid),
        Kind::String | Kind::Class | Kind::Password => one_of(text, valid),
        Kind::List => list_of(text, valid),
    }
}

/// Parses `true` or `false`, in upper or lower case, as Kafka does.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        word if word.eq_ignore_ascii_case("true") => Ok(true),
        word if word.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Splits a comma-separated list, without the white space around the elements.
pub(crate) fn list(text: &str) -> Vec<&str> {
    let text = text.trim();
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() }
}

fn integer(text: &str, least: i64, most: i64) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("expected a whole number from {least} to {most}")),
    }
}

fn in_range(number: i64, valid: Valid) -> Result<(), String> {
    match valid {
        Valid::AtLeast(least) if number < least => Err(format!("expected at least {least}")),
        Valid::Between(least, most) if least == most && number != least => {
            Err(format!("expected {least}, the only value that is supported"))
        }
        Valid::Between(least, most) if !(least..=most).contains(&number) => {
            Err(format!("expected a number from {least} to {most}"))
        }
        _ => Ok(()),
    }
}

fn double(text: &str, valid: Valid) -> Result<(), String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let number = number.ok_or_else(|| "expected a number".to_owned())?;
    match valid {
        Valid::Ratio(least, most) if !(least..=most).contains(&number) => {
            Err(format!("expected a number from {least} to {most}"))
        }
        _ => Ok(()),
    }
}

fn one_of(text: &str, valid: Valid) -> Result<(), String> {
    match valid {
        Valid::OneOf(words) if !words.contains(&text) => Err(format!("expected one of {}", words.join(", "))),
        _ => Ok(()),
    }
}

fn list_of(text: &str, valid: Valid) -> Result<(), String> {
    let words = match valid {
        Valid::ListOf(words) => words,
        Valid::Replicas if ThrottledReplicas::parse(text).is_none() => {
            return Err("expected the literal '*' or a list of replicas in the following format: \
                [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                .to_owned());
        }
        _ => return Ok(()),
    };
    let elements = list(text);
    for (index, element) in elements.iter().enumerate() {
        if !words.contains(element) {
            return Err(format!("expected a list of {}", words.join(", ")));
        }
        if elements[..index].contains(element) {
            return Err(format!("{element} is listed twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded_by_type_and_range() {
        assert!(check(Kind::Int, Valid::Any, " 2147483647 ").is_ok());
        assert!(check(Kind::Int, Valid::Any, "2147483648").is_err());
        assert!(check(Kind::Short, Valid::Any, "40000").is_err());
        assert!(check(Kind::Long, Valid::AtLeast(-1), "-2").is_err());
        assert!(check(Kind::Int, Valid::Between(1, 9), "10").is_err());
        assert!(check(Kind::Int, Valid::Any, "1.5").is_err());
        assert!(check(Kind::Double, Valid::Ratio(0.0, 1.0), "0.5").is_ok());
        assert!(check(Kind::Double, Valid::Ratio(0.0, 1.0), "NaN").is_err());
    }

    #[test]
    fn words_and_lists() {
        assert!(check(Kind::Boolean, Valid::Any, "TRUE").is_ok());
        assert!(check(Kind::Boolean, Valid::Any, "yes").is_err());
        assert!(check(Kind::String, Valid::OneOf(&["a", "b"]), "c").is_err());
        assert!(check(Kind::List, Valid::ListOf(&["compact", "delete"]), "compact, delete").is_ok());
        assert!(check(Kind::List, Valid::ListOf(&["compact", "delete"]), "compact,compact").is_err());
        assert_eq!(list(" a , b"), ["a", "b"]);
        assert!(list("  ").is_empty());
        for good in ["", "*", "0:1", "0:1,12:3"] {
            assert_eq!(check(Kind::List, Valid::Replicas, good), Ok(()), "{good}");
        }
        for bad in ["0", "a:1", "0:-1", "*,0:1", "none"] {
            assert!(check(Kind::List, Valid::Replicas, bad).is_err(), "{bad}");
        }
    }
}
