//! From attributes to a checked description of the struct.

use syn::parse::{Parse, ParseStream};
use syn::{Data, DeriveInput, Error, Expr, Fields, Ident, LitInt, Result, Token, Type};

/// The struct as the expansion needs it.
pub(crate) struct Struct {
    pub(crate) ident: Ident,
    /// None for a struct that only occurs inside others.
    pub(crate) root: Option<Root>,
    pub(crate) fields: Vec<Field>,
}

/// What `#[message(...)]` says.
pub(crate) struct Root {
    pub(crate) versions: Versions,
    pub(crate) flexible: Option<i16>,
    /// The API key's variant and the type of the answer, for a request.
    pub(crate) request: Option<(Ident, Ident)>,
}

/// A field and what `#[wire(...)]` says about it.
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
        // The decoder relies on it: it refuses tags that do not ascend, and the encoder writes them in field order.
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
        let versions = versions.ok_or_else(|| input.error("a message needs `versions = first..=last`"))?;
        if versions.first.is_none() || versions.last.is_none() {
            return Err(input.error("the versions of a message are closed at both ends"));
        }
        let request = match (api, response) {
            (Some(api), Some(response)) => Some((api, response)),
            (None, None) => None,
            _ => return Err(input.error("`api` and `response` come together")),
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
        if input.peek(Token![..=]) {
            input.parse::<Token![..=]>()?;
        } else {
            input.parse::<Token![..]>()?;
        }
        Ok(Self { first, last: bound(input)? })
    }
}
