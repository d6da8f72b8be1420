//! The model of a tokenizer: read without detours, and shared by the readings of a text.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BpeBuilder, Merges, BPE};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::{Model, Result, Token};

/// The library reads any model by way of four trees of JSON values, which take most of the time of loading a tokenizer and
/// several times the memory of the result. Here the text of a BPE goes straight into its tables; the other models, which
/// are small, go the library's way.
#[derive(Clone)]
pub struct SharedModel {
    model: Arc<ModelWrapper>,
    end: u32,
}

impl SharedModel {
    /// One above the largest id.
    pub fn end(&self) -> u32 {
        self.end
    }
}

fn end_of<'a>(ids: impl Iterator<Item = &'a u32>) -> u32 {
    ids.max().map_or(0, |&id| id.saturating_add(1))
}

impl<'de> Deserialize<'de> for SharedModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ModelVisitor)
    }
}

struct ModelVisitor;

impl<'de> Visitor<'de> for ModelVisitor {
    type Value = SharedModel;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the model of a tokenizer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<SharedModel, A::Error> {
        let mut others = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value: Value = map.next_value()?;
            if key == "type" && value == "BPE" && others.is_empty() {
                let fields = BpeFields::deserialize(MapAccessDeserializer::new(map))?;
                let end = end_of(fields.vocab.values());
                let model = fields.build().map_err(A::Error::custom)?;
                return Ok(SharedModel { model: Arc::new(ModelWrapper::BPE(model)), end });
            }
            others.insert(key, value);
        }
        let model: ModelWrapper = serde_json::from_value(Value::Object(others)).map_err(A::Error::custom)?;
        let end = end_of(model.get_vocab().values());
        Ok(SharedModel { model: Arc::new(model), end })
    }
}

/// What follows "type": "BPE".
#[derive(Deserialize)]
struct BpeFields {
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: AHashMap<String, u32>,
    merges: Vec<Merge>,
}

impl BpeFields {
    fn build(self) -> Result<BPE> {
        let merges: Merges = self.merges.into_iter().filter_map(|merge| merge.0).collect();
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(self.vocab, merges)
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(dropout) = self.dropout {
            builder = builder.dropout(dropout);
        }
        if let Some(token) = self.unk_token {
            builder = builder.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build()
    }
}

/// ["left", "right"] or, in older files, "left right" beside a line "#version: 0.2", which is none.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a merge, two tokens in a list or divided by a blank")
    }

    fn visit_str<E: Error>(self, line: &str) -> std::result::Result<Merge, E> {
        if line.starts_with("#version") {
            return Ok(Merge(None));
        }
        match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok(Merge(Some((left.to_owned(), right.to_owned())))),
            _ => Err(E::custom(format!("merge \"{line}\" is not two tokens divided by a blank"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> std::result::Result<Merge, A::Error> {
        let (left, right, more) = (pair.next_element()?, pair.next_element()?, pair.next_element::<String>()?);
        match (left, right, more) {
            (Some(left), Some(right), None) => Ok(Merge(Some((left, right)))),
            _ => Err(A::Error::custom("a merge is not a list of two tokens")),
        }
    }
}

impl Model for SharedModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        self.model.tokenize(text)
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.model.token_to_id(token)
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        self.model.id_to_token(id)
    }
    fn get_vocab(&self) -> HashMap<String, u32> {
        self.model.get_vocab()
    }
    fn get_vocab_size(&self) -> usize {
        self.model.get_vocab_size()
    }
    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        self.model.save(folder, prefix)
    }
    fn get_trainer(&self) -> TrainerWrapper {
        self.model.get_trainer()
    }
}
