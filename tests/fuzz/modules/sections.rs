//! Takes modules and components apart into their sections, and puts them together again.

use wasm_encoder::Encode;
use wasmparser::BinaryReader;

/// The ids of the sections that are looked into.
pub(crate) mod id {
    pub(crate) const IMPORT: u8 = 2;
    pub(crate) const FUNCTION: u8 = 3;
    pub(crate) const EXPORT: u8 = 7;
    pub(crate) const CODE: u8 = 10;
    /// A core module inside a component.
    pub(crate) const CORE_MODULE: u8 = 1;
    /// A component inside a component.
    pub(crate) const COMPONENT: u8 = 4;
}

/// The magic number and the version.
const HEADER_BYTES: usize = 8;

/// The sections of a module or a component.
pub(crate) struct Sections {
    header: Vec<u8>,
    /// Ids and contents.
    sections: Vec<(u8, Vec<u8>)>,
}

impl Sections {
    /// Reads the outermost sections. `None` if a length leads past the end.
    pub(crate) fn of(bytes: &[u8]) -> Option<Sections> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let mut reader = BinaryReader::new(rest, 0);
        let mut sections = Vec::new();
        while !reader.eof() {
            let id = reader.read_u8().ok()?;
            let length = reader.read_var_u32().ok()?;
            sections.push((id, reader.read_bytes(length as usize).ok()?.to_vec()));
        }
        Some(Sections { header: header.to_vec(), sections })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.clone();
        for (id, data) in &self.sections {
            bytes.push(*id);
            data.as_slice().encode(&mut bytes);
        }
        bytes
    }

    /// Returns the places of the sections with this id.
    pub(crate) fn places(&self, id: u8) -> Vec<usize> {
        let found = self.sections.iter().enumerate().filter(|(_, section)| section.0 == id);
        found.map(|(place, _)| place).collect()
    }

    /// Returns the contents of the section at a place.
    pub(crate) fn data(&self, place: usize) -> &[u8] {
        &self.sections[place].1
    }

    /// Returns the contents of the first section with this id.
    pub(crate) fn first(&self, id: u8) -> Option<&[u8]> {
        self.sections.iter().find(|section| section.0 == id).map(|section| section.1.as_slice())
    }

    /// Replaces the contents of the section at a place.
    pub(crate) fn replace(&mut self, place: usize, data: Vec<u8>) {
        self.sections[place].1 = data;
    }

    /// Replaces the contents of the first section with this id.
    pub(crate) fn replace_first(&mut self, id: u8, section: &impl Encode) {
        let mut data = Vec::new();
        section.encode(&mut data);
        // It begins with its own length.
        let mut reader = BinaryReader::new(&data, 0);
        let length = reader.read_var_u32().expect("its length") as usize;
        let place = self.places(id)[0];
        self.replace(place, data[data.len() - length..].to_vec());
    }
}

/// Appends a section to a component.
pub(crate) fn append(component: &mut Vec<u8>, id: u8, data: &[u8]) {
    component.push(id);
    data.encode(component);
}
