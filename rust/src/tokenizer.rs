//! A tokenizer in two readings: with the special tokens it knows, and blind to them.

use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::model::SharedModel;

type Tokenizer =
    TokenizerImpl<SharedModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Noncharacters, so that no real text holds it. The blind reading splits at it as at a special token, which lets the
/// caller say where special tokens stand (see src/text/chat.cc). The same text is in src/text/hf_c.h.
const MARKER: &str = "\u{10FFFF}\u{10FFFE}saif\u{10FFFE}\u{10FFFF}";

pub struct HfTokenizer {
    parsing: Tokenizer, // special tokens spelled in the text become those tokens
    blind: Tokenizer,   // they stay text; MARKER becomes the id after the last
}

pub struct Encoded {
    pub ids: Vec<u32>,
    pub offsets: Option<Vec<(usize, usize)>>, // bytes of the text
}

impl HfTokenizer {
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut parsing = Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        // What Transformers switches off for a plain call.
        parsing.with_truncation(None).map_err(|e| e.to_string())?;
        parsing.with_padding(None);
        parsing.set_encode_special_tokens(false);
        let mut blind = parsing.clone();
        blind.set_encode_special_tokens(true);
        blind.add_tokens(&[AddedToken::from(MARKER, false).normalized(false)]);
        Ok(Self { parsing, blind })
    }

    pub fn encode(&self, text: &str, special: bool, parse: bool, offsets: bool) -> Result<Encoded, String> {
        let tokenizer = if parse { &self.parsing } else { &self.blind };
        let encoding = if offsets { tokenizer.encode(text, special) } else { tokenizer.encode_fast(text, special) };
        let encoding = encoding.map_err(|e| e.to_string())?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            offsets: offsets.then(|| encoding.get_offsets().to_vec()),
        })
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        self.parsing.decode(ids, skip_special).map_err(|e| e.to_string())
    }

    /// One above the largest id.
    pub fn end(&self) -> u32 {
        let added = self.parsing.get_added_vocabulary().get_added_tokens_decoder();
        added.keys().map(|&id| id.saturating_add(1)).fold(self.parsing.get_model().end(), u32::max)
    }

    pub fn piece(&self, id: u32) -> Option<String> {
        self.parsing.id_to_token(id)
    }

    pub fn id_of(&self, piece: &str) -> Option<u32> {
        self.parsing.token_to_id(piece)
    }

    /// Records {u32 id, u32 special, u32 size, bytes} as src/text/hf_c.h says.
    pub fn added_tokens(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (&id, token) in self.parsing.get_added_vocabulary().get_added_tokens_decoder() {
            for number in [id, u32::from(token.special), token.content.len() as u32] {
                out.extend_from_slice(&number.to_ne_bytes());
            }
            out.extend_from_slice(token.content.as_bytes());
        }
        out
    }

    pub fn decoder(&self) -> Result<String, String> {
        serde_json::to_string(&self.parsing.get_decoder()).map_err(|e| e.to_string())
    }
}
