//! Parses the attributes of a struct into a checked description.

use syn::parse::{Parse, ParseStream};
use syn::{Data, DeriveInput, Error, Expr, Fields, Ident, LitInt, Result, Token, Type};

/// Describes a struct for the expansion.
pub(crate) struct Struct {
    pub(crate) ident: Ident,
    /// None for a struct that only occurs in others.
    pub(crate) root: Option<Root>,
    pub(crate) fields: Vec<Field>,
}

/// Holds the content of `#[message(...)]`.
pub(crate) struct Root {
    pub(crate) versions: Versions,
    pub(crate) flexible: Option<i16>,
    /// The variant of the API key and the type of the response, for a request.
    pub(crate) request: Option<(Ident, Ident)>,
}

/// Describes a field, with the content of `#[wire(...)]`.
pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<Expr>,
    pub(crate) ignorable: bool,
}

/// An inclusive range of versions; None is open at that end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Versions {
    pub(crate) first: Option<i16>,
    pub(crate) last: Option<i16>,
}

impl Struct {
    pub(crate) fn parse(input: DeriveInput) -> Result<Self> {
        let mut root = None;
        for attribute in input.attrs.iter().filter(|a| a.path().is_ident("message")) {
            root = Some(attribute.parse_args::<Root>()?);
        }
        let Data::Struct(data) = input.data else {
            return Err(Error::new_spanned(input.ident, "only a struct can be a message"));
        };
        let fields = match data.fields {
            Fields::Named(named) => named.named.into_iter().map(Field::parse).collect::<Result<Vec<_>>>()?,
            Fields::Unit => Vec::new(),
            Fields::Unnamed(_) => {
                return Err(Error::new_spanned(input.ident, "the fields of a message have names"));
            }
        };
        // The decoder rejects tags that do not ascend, and the encoder writes them in the order of the fields.
        let tags: Vec<u32> = fields.iter().filter_map(|field| field.tag).collect();
        if !tags.is_sorted_by(|a, b| a < b) {
            return Err(Error::new_spanned(input.ident, "tagged fields must stand in ascending order of their tags"));
        }
        Ok(Self { ident: input.ident, root, fields })
    }
}

impl Field {
    fn parse(field: syn::Field) -> Result<Self> {
        let ident = field.ident.clone().ok_or_else(|| Error::new_spanned(&field, "a field needs a name"))?;
        let mut parsed = Self {
            ident,
            ty: field.ty,
            versions: Versions::default(),
            nullable: Versions::default(),
            tag: None,
            default: None,
            ignorable: false,
        };
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("wire")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("versions") {
                    parsed.versions = meta.value()?.parse()?;
                } else if meta.path.is_ident("nullable") {
                    parsed.nullable = meta.value()?.parse()?;
                } else if meta.path.is_ident("tag") {
                    parsed.tag = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
                } else if meta.path.is_ident("default") {
                    parsed.default = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("ignorable") {
                    parsed.ignorable = true;
                } else {
                    return Err(meta.error("expected versions, nullable, tag, default or ignorable"));
                }
                Ok(())
            })?;
        }
        Ok(parsed)
    }
}

impl Parse for Root {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut versions, mut flexible, mut api, mut response) = (None, None, None, None);
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "versions" => versions = Some(input.parse::<Versions>()?),
                "flexible" => flexible = Some(input.parse::<LitInt>()?.base10_parse()?),
                "api" => api = Some(input.parse::<Ident>()?),
                "response" => response = Some(input.parse::<Ident>()?),
                _ => {
                    return Err(Error::new_spanned(key, "expected versions, flexible, api or response"));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let versions = versions.ok_or_else(|| Error::new(input.span(), "a message needs `versions = first..=last`"))?;
        if versions.first.is_none() || versions.last.is_none() {
            return Err(Error::new(input.span(), "the versions of a message are closed at both ends"));
        }
        let request = match (api, response) {
            (Some(api), Some(response)) => Some((api, response)),
            (None, None) => None,
            _ => return Err(Error::new(input.span(), "`api` and `response` come together")),
        };
        Ok(Self { versions, flexible, request })
    }
}

impl Parse for Versions {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let bound = |input: ParseStream<'_>| -> Result<Option<i16>> {
            if input.peek(LitInt) { input.parse::<LitInt>()?.base10_parse().map(Some) } else { Ok(None) }
        };
        let first = bound(input)?;
        let last = if input.peek(Token![..=]) {
            input.parse::<Token![..=]>()?;
            bound(input)?
        } else {
            input.parse::<Token![..]>()?;
            None
        };
        if last.is_none() && input.peek(LitInt) {
            return Err(Error::new(input.span(), "the last version is included: write `..=` before it"));
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: &str) -> String {
        let input = syn::parse_str(source).expect("Rust");
        Struct::parse(input).err().map_or_else(|| format!("taken: {source}"), |error| error.to_string())
    }

    #[test]
    fn what_a_message_cannot_say_is_named() {
        let message = |attribute: &str| format!("#[message({attribute})] struct M {{}}");
        let field = |attribute: &str| format!("struct M {{ #[wire({attribute})] field: i32 }}");
        for (source, error) in [
            ("enum M {}".to_owned(), "only a struct can be a message"),
            ("struct M(i32);".to_owned(), "the fields of a message have names"),
            (message("flexible = 4"), "a message needs `versions = first..=last`"),
            (message("versions = 0.."), "the versions of a message are closed at both ends"),
            (message("versions = ..=4"), "the versions of a message are closed at both ends"),
            (message("versions = 0..4"), "the last version is included: write `..=` before it"),
            (message("versions = 0..=4, api = Heartbeat"), "`api` and `response` come together"),
            (message("version = 0..=4"), "expected versions, flexible, api or response"),
            (field("since = 3"), "expected versions, nullable, tag, default or ignorable"),
            (field("versions = 3..5"), "the last version is included: write `..=` before it"),
            (
                "struct M { #[wire(tag = 1)] one: i32, #[wire(tag = 0)] other: i32 }".to_owned(),
                "tagged fields must stand in ascending order of their tags",
            ),
        ] {
            assert_eq!(refusal(&source), error, "{source}");
        }
    }

    #[test]
    fn ranges_are_open_where_nothing_is_written() {
        let parse = |source: &str| syn::parse_str::<Versions>(source).map(|range| (range.first, range.last)).ok();
        assert_eq!(parse("3.."), Some((Some(3), None)));
        assert_eq!(parse("..=7"), Some((None, Some(7))));
        assert_eq!(parse("0..=12"), Some((Some(0), Some(12))));
        assert_eq!(parse("3"), None);
        assert_eq!(parse("3..=40000"), None);
    }
}
