//! One config key as a row of a table, and the macros that make the tables.
//!
//! Each row of [`keys!`] also becomes a typed constant, such as `NUM_PARTITIONS`. A misspelt name does not compile, and
//! the type of a value follows from its row.

use std::marker::PhantomData;

use super::value::{self, ConfigType, Kind, Valid};

/// One config key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    /// Kafka's name for it.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The default as text; `None` is Kafka's null.
    pub(crate) default: Option<&'static str>,
    pub(crate) valid: Valid,
    /// What it does, as DescribeConfigs shows it.
    pub(crate) doc: &'static str,
    /// For a topic config: the broker's keys that set its default, in the order of precedence. Each has the factor that
    /// converts its unit to the topic's (1 for keys that are not numbers).
    pub(crate) broker_synonyms: &'static [(&'static str, i64)],
    pub(crate) role: Role,
}

/// What a key does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Acts,
    /// It sets internals of Kafka's process, so every valid value is accepted without effect.
    Inert,
    /// It belongs to a part of Kafka that is not here, so only its default is accepted.
    Absent,
}

impl Key {
    /// Returns whether the config is internal to Kafka, so that it is listed only if it is set.
    pub(crate) fn is_internal(&self) -> bool {
        self.name.starts_with("internal.")
    }

    /// Checks a value. The error names the key, the value and what is expected; it does not repeat a password.
    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        let checked = match self.role {
            Role::Absent if self.is_default(text) => Ok(()),
            Role::Absent => Err(self.only_the_default()),
            Role::Acts | Role::Inert => value::check(self.kind, self.valid, text),
        };
        checked.map_err(|expected| match self.kind {
            Kind::Password => format!("bad value for {}: {expected}", self.name),
            _ => format!("bad value `{text}` for {}: {expected}", self.name),
        })
    }

    /// Returns whether a value is the default. An empty text is Kafka's null, too.
    fn is_default(&self, text: &str) -> bool {
        match (self.kind, self.default.unwrap_or_default()) {
            (Kind::List, default) => value::list(text) == value::list(default),
            (_, default) => text.trim().eq_ignore_ascii_case(default),
        }
    }

    fn only_the_default(&self) -> String {
        let remedy = match self.default {
            None | Some("") => "remove it".to_owned(),
            Some(default) => format!("remove it, or set its default `{default}`"),
        };
        format!("{remedy}. {}", self.doc)
    }
}

/// A key together with the type of its values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TypedKey<T> {
    pub(crate) row: Key,
    value_type: PhantomData<fn() -> T>,
}

impl<T: ConfigType> TypedKey<T> {
    pub(in crate::config) const fn new(row: Key) -> Self {
        Self { row, value_type: PhantomData }
    }

    /// Parses a value that was checked against the row; without a value, the default.
    pub(crate) fn parse<'a>(&self, text: Option<&'a str>) -> T::Value<'a> {
        let value = T::parse(text.or(self.row.default).map(str::trim));
        value.unwrap_or_else(|| panic!("{}: its value was not checked against its row", self.row.name))
    }
}

/// Makes a table, and a typed constant for each of its rows: constant, name, type, default, allowed values. A broker's
/// key then has `Acts`; a topic config has the broker's keys that set its default. The documentation comes
/// last.
macro_rules! keys {
    ($table:ident: $(
        $constant:ident $name:literal $kind:ident = $default:tt, $valid:expr, $role:tt, $doc:literal;
    )*) => {
        $(pub(crate) const $constant: $crate::config::key::TypedKey<$crate::config::key::value_type!($kind $default)> =
            $crate::config::key::TypedKey::new($crate::config::key::Key {
                name: $name,
                kind: $crate::config::value::Kind::$kind,
                default: $crate::config::key::default_text!($default),
                valid: $valid,
                doc: $doc,
                broker_synonyms: $crate::config::key::synonyms!($role),
                role: $crate::config::key::Role::Acts,
            });)*
        pub(in crate::config) const $table: &[$crate::config::key::Key] = &[$($constant.row),*];
    };
}

/// Makes a table of keys that do not act: the part of Kafka, the name, type, default and allowed values.
macro_rules! inert_keys {
    ($table:ident: $($part:ident $name:literal $kind:ident = $default:tt, $valid:expr;)*) => {
        pub(in crate::config) const $table: &[$crate::config::key::Key] = &[$($crate::config::key::Key {
            name: $name,
            kind: $crate::config::value::Kind::$kind,
            default: $crate::config::key::default_text!($default),
            valid: $valid,
            doc: Part::$part.doc(),
            broker_synonyms: &[],
            role: Part::$part.role(),
        }),*];
    };
}

macro_rules! default_text {
    (null) => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}

macro_rules! synonyms {
    ([$($synonym:ident * $factor:literal),*]) => {
        &[$(($crate::config::broker_keys::$synonym.row.name, $factor)),*]
    };
    ($role:ident) => {
        &[]
    };
}

macro_rules! value_type {
    ($kind:ident null) => { Option<$crate::config::key::value_type!($kind)> };
    ($kind:ident $default:literal) => { $crate::config::key::value_type!($kind) };
    (Boolean) => { bool };
    (Short) => { i16 };
    (Int) => { i32 };
    (Long) => { i64 };
    (Double) => { f64 };
    (List) => { $crate::config::value::List };
    (String) => { $crate::config::value::Text };
}

pub(in crate::config) use {default_text, inert_keys, keys, synonyms, value_type};
