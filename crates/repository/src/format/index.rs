//! Index files: which blob is in which pack, so that no pack header needs to be read.

use std::borrow::Cow;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::BlobKind;
use super::pack::PackedBlob;
use crate::Id;

/// A pack and its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedPack {
    /// The pack's name.
    pub id: Id,
    /// What it holds.
    pub blobs: Vec<PackedBlob>,
}

#[derive(Serialize, Deserialize)]
struct JsonBlob {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    uncompressed_length: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Writes an index file's JSON piece by piece, so that no more than its text is held.
pub struct Encoder {
    text: Vec<u8>,
    blobs: usize,
}

impl Encoder {
    /// An index of no packs.
    pub fn new() -> Self {
        Self { text: b"{\"packs\":[".to_vec(), blobs: 0 }
    }

    /// Adds a pack.
    pub fn push(&mut self, id: &Id, blobs: &[PackedBlob]) {
        use std::io::Write as _;
        if self.blobs > 0 {
            self.text.push(b',');
        }
        self.text.extend_from_slice(b"{\"id\":\"");
        self.text.extend_from_slice(&id.hex());
        self.text.extend_from_slice(b"\",\"blobs\":[");
        for (i, blob) in blobs.iter().enumerate() {
            self.text.extend_from_slice(if i > 0 { b",{\"id\":\"" } else { b"{\"id\":\"" });
            self.text.extend_from_slice(&blob.id.hex());
            // Writing to a Vec does not fail.
            let _ = write!(
                self.text,
                "\",\"type\":\"{}\",\"offset\":{},\"length\":{}",
                blob.kind.noun(),
                blob.offset,
                blob.length
            );
            if blob.raw_length > 0 {
                let _ = write!(self.text, ",\"uncompressed_length\":{}", blob.raw_length);
            }
            self.text.push(b'}');
        }
        self.text.extend_from_slice(b"]}");
        self.blobs += blobs.len();
    }

    /// How many blobs were added.
    pub fn blobs(&self) -> usize {
        self.blobs
    }

    /// The file's JSON.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.extend_from_slice(b"]}");
        self.text
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads an index file's JSON, handing over one pack after the other.
pub fn decode(json: &[u8], visit: &mut dyn FnMut(IndexedPack)) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(IndexVisitor(visit))?;
    deserializer.end()
}

struct IndexVisitor<'a>(&'a mut dyn FnMut(IndexedPack));

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "packs" {
                if std::mem::replace(&mut seen, true) {
                    return Err(de::Error::duplicate_field("packs"));
                }
                map.next_value_seed(PacksVisitor(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if seen { Ok(()) } else { Err(de::Error::missing_field("packs")) }
    }
}

struct PacksVisitor<'a>(&'a mut dyn FnMut(IndexedPack));

impl<'de> DeserializeSeed<'de> for PacksVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // An index without packs may say `null`: that is how an empty Go slice is written.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PacksVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of packs")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct JsonPack {
            id: Id,
            blobs: Option<Vec<JsonBlob>>,
        }
        while let Some(pack) = seq.next_element::<JsonPack>()? {
            let blobs = pack.blobs.unwrap_or_default().into_iter().map(|blob| PackedBlob {
                id: blob.id,
                kind: blob.kind,
                offset: blob.offset,
                length: blob.length,
                raw_length: blob.uncompressed_length,
            });
            (self.0)(IndexedPack { id: pack.id, blobs: blobs.collect() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<IndexedPack>, serde_json::Error> {
        let mut packs = vec![];
        decode(json.as_bytes(), &mut |pack| packs.push(pack))?;
        Ok(packs)
    }

    #[test]
    fn index_and_back() {
        let blob = |n: u8, kind, raw_length| PackedBlob { id: Id([n; 32]), kind, offset: 7, length: 99, raw_length };
        let packs = vec![
            IndexedPack { id: Id([9; 32]), blobs: vec![blob(1, BlobKind::Data, 0), blob(2, BlobKind::Tree, 500)] },
            IndexedPack { id: Id([8; 32]), blobs: vec![blob(3, BlobKind::Data, 1)] },
        ];
        let mut encoder = Encoder::new();
        packs.iter().for_each(|pack| encoder.push(&pack.id, &pack.blobs));
        assert_eq!(encoder.blobs(), 3);
        assert_eq!(read(&String::from_utf8(encoder.finish()).unwrap()).unwrap(), packs);
    }

    #[test]
    fn what_stock_tools_write_for_nothing_is_read() {
        for json in [r#"{"packs":[]}"#, r#"{"packs":null}"#, r#"{"supersedes":["x"],"packs":[]}"#] {
            assert_eq!(read(json).unwrap(), vec![], "{json}");
        }
        let id = "0".repeat(64);
        assert_eq!(read(&format!(r#"{{"packs":[{{"id":"{id}","blobs":null}}]}}"#)).unwrap().len(), 1);
    }

    #[test]
    fn damage_is_an_error() {
        for json in [
            "",
            "{}",
            "[]",
            r#"{"packs":[}"#,
            r#"{"packs":[]} x"#,
            r#"{"packs":[{"id":"1"}]}"#,
            r#"{"packs":[],"packs":[]}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
