//! Compiles the text of a schema.

use std::collections::BTreeMap;

use prost_reflect::FileDescriptor;
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

/// The name of the schema among the files that it imports.
const NAME: &str = "schema.proto";

/// Compiles a schema and what it imports.
///
/// # Errors
/// Says what is wrong with the text, or which import is missing.
pub(crate) fn compile(text: &str, imports: &BTreeMap<String, String>) -> Result<FileDescriptor, String> {
    let mut texts = imports.clone();
    texts.insert(NAME.to_owned(), text.to_owned());
    let mut compiler = Compiler::with_file_resolver(Texts(texts));
    compiler.open_file(NAME).map_err(|error| error.to_string())?;
    compiler.descriptor_pool().get_file_by_name(NAME).ok_or_else(|| "the schema was not compiled".to_owned())
}

/// The texts of files by their names. Nothing is read from a disk.
struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => GoogleFileResolver::new().open_file(name),
        }
    }
}
