//! The types of a schema, in a form that values are walked along.

use std::collections::{BTreeMap, HashMap};

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use serde_json::Value;

use crate::encode;

/// The index of a type in [`Types`]. A type may contain itself.
pub(crate) type Id = usize;

/// The types of a schema.
#[derive(Debug)]
pub(crate) struct Types {
    all: Vec<Type>,
    pub(crate) root: Id,
}

#[derive(Debug)]
pub(crate) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Array(Id),
    Map(Id),
    Union(Vec<Id>),
    Record { name: String, fields: Vec<Field>, places: BTreeMap<String, usize> },
    Enum { name: String, symbols: Vec<String> },
    Fixed { name: String, size: usize },
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) of: Id,
    pub(crate) default: Option<Value>,
}

impl Types {
    /// Reads a schema: a document, or its text.
    pub(crate) fn of(schema: Value, references: &[Value]) -> Result<Types, String> {
        let schema = text(schema)?;
        let references: Vec<String> = references.iter().cloned().map(text).collect::<Result<_, _>>()?;
        let parsed = Schema::parse_str_with_list(&schema, references);
        let (schema, references) = parsed.map_err(|error| error.to_string())?;
        let mut builder = Builder::default();
        for reference in &references {
            builder.add(reference, None)?;
        }
        let root = builder.add(&schema, None)?;
        let types = Types { all: builder.all, root };
        for (field, default) in types.defaults() {
            let checked = encode::encode(&types, field.of, default, 0, &mut Vec::new());
            checked.map_err(|error| format!("the default of {}: {error}", field.name))?;
        }
        Ok(types)
    }

    pub(crate) fn get(&self, id: Id) -> &Type {
        &self.all[id]
    }

    /// Iterates over the fields with a default.
    pub(crate) fn defaults(&self) -> impl Iterator<Item = (&Field, &Value)> {
        let fields = self.all.iter().flat_map(|of| match of {
            Type::Record { fields, .. } => fields.as_slice(),
            _ => &[],
        });
        fields.filter_map(|field| Some((field, field.default.as_ref()?)))
    }
}

impl Type {
    /// Returns the name by which Avro's JSON calls a branch of a union.
    pub(crate) fn name(&self) -> &str {
        match self {
            Type::Null => "null",
            Type::Boolean => "boolean",
            Type::Int => "int",
            Type::Long => "long",
            Type::Float => "float",
            Type::Double => "double",
            Type::Bytes => "bytes",
            Type::Text => "string",
            Type::Array(_) => "array",
            Type::Map(_) => "map",
            Type::Union(_) => "union",
            Type::Record { name, .. } | Type::Enum { name, .. } | Type::Fixed { name, .. } => name,
        }
    }
}

/// Where the default of a field is kept while the library reads the schema. It would check defaults inside defaults,
/// which takes very long for some schemas.
const DEFAULT: &str = "millstream.default";

/// Returns the text of a schema without logical types, which do not change the bytes, and without defaults.
fn text(mut schema: Value) -> Result<String, String> {
    if let Value::String(text) = &schema {
        match serde_json::from_str(text) {
            Ok(document) => schema = document,
            // The name of a primitive type needs no quotes of its own.
            Err(_) if text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') => {}
            Err(error) => return Err(format!("not JSON: {error}")),
        }
    }
    reduce(&mut schema);
    Ok(schema.to_string())
}

fn reduce(schema: &mut Value) {
    match schema {
        Value::Array(branches) => branches.iter_mut().for_each(reduce),
        Value::Object(object) => {
            object.remove("logicalType");
            for part in ["type", "items", "values"] {
                if let Some(part) = object.get_mut(part) {
                    reduce(part);
                }
            }
            let fields = object.get_mut("fields").and_then(Value::as_array_mut);
            for field in fields.into_iter().flatten() {
                reduce(field);
                if let Some(field) = field.as_object_mut()
                    && let Some(default) = field.remove("default")
                {
                    field.insert(DEFAULT.to_owned(), default);
                }
            }
        }
        _ => {}
    }
}

#[derive(Default)]
struct Builder {
    all: Vec<Type>,
    named: HashMap<String, Id>,
}

impl Builder {
    fn add(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<Id, String> {
        let found = match schema {
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int => Type::Int,
            Schema::Long => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes => Type::Bytes,
            Schema::String => Type::Text,
            Schema::Array(array) => Type::Array(self.add(&array.items, namespace)?),
            Schema::Map(map) => Type::Map(self.add(&map.types, namespace)?),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.add(branch, namespace));
                Type::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Enum(of) => {
                let name = of.name.fullname(namespace);
                return Ok(self.add_named(name.clone(), Type::Enum { name, symbols: of.symbols.clone() }));
            }
            Schema::Fixed(of) => {
                let name = of.name.fullname(namespace);
                return Ok(self.add_named(name.clone(), Type::Fixed { name, size: of.size }));
            }
            Schema::Record(record) => return self.add_record(record, namespace),
            Schema::Ref { name } => {
                let name = name.fullname(namespace);
                return self.named.get(&name).copied().ok_or_else(|| format!("there is no type {name}"));
            }
            other => return Err(format!("the type {other:?} is not supported")),
        };
        Ok(self.push(found))
    }

    fn add_record(&mut self, record: &RecordSchema, namespace: Option<&str>) -> Result<Id, String> {
        let name = record.name.fullname(namespace);
        // It is known by its name before its fields are, since they may have its type.
        let id = self.add_named(name.clone(), Type::Null);
        let inside = record.name.namespace().or(namespace);
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let of = self.add(&field.schema, inside)?;
            fields.push(Field { name: field.name.clone(), of, default: field.custom_attributes.get(DEFAULT).cloned() });
        }
        let places = fields.iter().enumerate().map(|(place, field)| (field.name.clone(), place)).collect();
        self.all[id] = Type::Record { name, fields, places };
        Ok(id)
    }

    fn add_named(&mut self, name: String, found: Type) -> Id {
        let id = self.push(found);
        self.named.insert(name, id);
        id
    }

    fn push(&mut self, found: Type) -> Id {
        self.all.push(found);
        self.all.len() - 1
    }
}
