//! Language identification by lingua among the languages that Cargo.toml names. The models are embedded and mapped with
//! the program; a page of one is read when a text first needs it.

use std::sync::LazyLock;

use lingua::{LanguageDetector, LanguageDetectorBuilder};

/// A language's ISO 639-1 code in lower case with a terminator, and how probable it is that a text is in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Language {
    code: [u8; 4],
    probability: f64,
}

static DETECTOR: LazyLock<LanguageDetector> = LazyLock::new(|| LanguageDetectorBuilder::from_all_languages().build());

impl Language {
    fn new(language: lingua::Language, probability: f64) -> Self {
        let mut code = [0; 4];
        let name = language.iso_code_639_1().to_string();
        for (to, from) in code.iter_mut().zip(name.bytes().take(3)) {
            *to = from.to_ascii_lowercase();
        }
        // lingua sums over hash maps in random order; the last bits of its probabilities differ from run to run.
        Language { code, probability: (probability * 1e9).round() / 1e9 }
    }
}

/// The languages that have a probability above 0, most probable first.
pub fn identify(text: &[u8]) -> Vec<Language> {
    let found = DETECTOR.compute_language_confidence_values(String::from_utf8_lossy(text));
    found.into_iter().filter(|(_, p)| *p > 0.0).map(|(language, p)| Language::new(language, p)).collect()
}

/// All languages that can be told.
pub fn known() -> Vec<Language> {
    let mut all: Vec<_> = lingua::Language::all().into_iter().map(|language| Language::new(language, 0.0)).collect();
    all.sort_by_key(|language| language.code);
    all
}
