//! The C interface of src/text/hf_c.h and src/text/language_c.h. Every function catches panics and reports them as errors;
//! nothing is printed.

mod chat;
mod language;
mod model;
mod tokenizer;

use std::any::Any;
use std::os::raw::c_char;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::slice;
use std::sync::Once;

use language::Language;
use tokenizer::HfTokenizer;

/// Bytes owned by this library until `saif_hf_text_free`.
#[repr(C)]
pub struct Text {
    data: *mut c_char,
    size: usize,
}

/// Ids, and the byte range of the text that each stands for, owned by this library until `saif_hf_ids_free`.
/// `begin` and `end` are null where offsets were not asked for.
#[repr(C)]
pub struct Ids {
    ids: *mut u32,
    begin: *mut usize,
    end: *mut usize,
    size: usize,
}

const OK: i32 = 0;
const FAILED: i32 = 1;
const PANICKED: i32 = 2;

fn leak<T>(items: Vec<T>) -> *mut T {
    Box::into_raw(items.into_boxed_slice()) as *mut T
}

unsafe fn unleak<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, size)));
    }
}

impl Text {
    unsafe fn put(out: *mut Text, text: impl Into<Vec<u8>>) {
        let bytes = text.into();
        let size = bytes.len();
        *out = Text { data: leak(bytes) as *mut c_char, size };
    }
}

unsafe fn bytes<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    if size == 0 {
        &[]
    } else {
        slice::from_raw_parts(data as *const u8, size)
    }
}

unsafe fn utf8<'a>(data: *const c_char, size: usize) -> Result<&'a str, String> {
    std::str::from_utf8(bytes(data, size)).map_err(|e| format!("invalid UTF-8 at byte {}", e.valid_up_to()))
}

fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    format!("the tokenizers library failed: {what}")
}

/// Runs `f` and catches its panic, of which nothing is printed.
fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| set_hook(Box::new(|_| {})));
    catch_unwind(AssertUnwindSafe(f))
}

/// Runs `f`, writing its error or panic to `error`.
unsafe fn guarded(error: *mut Text, f: impl FnOnce() -> Result<(), String>) -> i32 {
    match caught(f) {
        Ok(Ok(())) => OK,
        Ok(Err(message)) => {
            Text::put(error, message);
            FAILED
        }
        Err(panic) => {
            Text::put(error, panic_text(panic));
            PANICKED
        }
    }
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_new(
    json: *const c_char,
    size: usize,
    out: *mut *mut HfTokenizer,
    error: *mut Text,
) -> i32 {
    guarded(error, || {
        let made = HfTokenizer::from_json(bytes(json, size))?;
        *out = Box::into_raw(Box::new(made));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` comes from `saif_hf_new` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_free(tokenizer: *mut HfTokenizer) {
    if !tokenizer.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(tokenizer))));
    }
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_encode(
    tokenizer: *const HfTokenizer,
    text: *const c_char,
    size: usize,
    flags: u32,
    out: *mut Ids,
    error: *mut Text,
) -> i32 {
    guarded(error, || {
        let text = utf8(text, size)?;
        let found = (*tokenizer).encode(text, flags & 1 != 0, flags & 2 != 0, flags & 4 != 0)?;
        let (begin, end) = match found.offsets {
            Some(offsets) => {
                let (begin, end) = offsets.into_iter().unzip();
                (leak(begin), leak(end))
            }
            None => (std::ptr::null_mut(), std::ptr::null_mut()),
        };
        let size = found.ids.len();
        *out = Ids { ids: leak(found.ids), begin, end, size };
        Ok(())
    })
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_decode(
    tokenizer: *const HfTokenizer,
    ids: *const u32,
    size: usize,
    skip_special: i32,
    out: *mut Text,
    error: *mut Text,
) -> i32 {
    guarded(error, || {
        let ids = if size == 0 { &[][..] } else { slice::from_raw_parts(ids, size) };
        Text::put(out, (*tokenizer).decode(ids, skip_special != 0)?);
        Ok(())
    })
}

/// # Safety
/// `tokenizer` comes from `saif_hf_new`.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_end(tokenizer: *const HfTokenizer) -> u32 {
    (*tokenizer).end()
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_piece(tokenizer: *const HfTokenizer, id: u32, out: *mut Text) -> i32 {
    let piece = caught(|| (*tokenizer).piece(id)).ok().flatten();
    let found = piece.is_some();
    if let Some(piece) = piece {
        Text::put(out, piece);
    }
    i32::from(found)
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_id(tokenizer: *const HfTokenizer, text: *const c_char, size: usize) -> i64 {
    let found = caught(|| utf8(text, size).ok().and_then(|piece| (*tokenizer).id_of(piece))).ok().flatten();
    found.map_or(-1, i64::from)
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_added_tokens(tokenizer: *const HfTokenizer, out: *mut Text, error: *mut Text) -> i32 {
    guarded(error, || {
        Text::put(out, (*tokenizer).added_tokens());
        Ok(())
    })
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_decoder(tokenizer: *const HfTokenizer, out: *mut Text, error: *mut Text) -> i32 {
    guarded(error, || {
        Text::put(out, (*tokenizer).decoder()?);
        Ok(())
    })
}

/// # Safety
/// Pointers as src/text/hf_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_render(
    template: *const c_char,
    template_size: usize,
    context: *const c_char,
    context_size: usize,
    out: *mut Text,
    error: *mut Text,
) -> i32 {
    guarded(error, || {
        let template = utf8(template, template_size).map_err(|e| format!("chat template: {e}"))?;
        let context = utf8(context, context_size).map_err(|e| format!("messages: {e}"))?;
        Text::put(out, chat::render(template, context)?);
        Ok(())
    })
}

/// Runs `f` and writes the first `capacity` languages that it gives to `out`: how many, or -1 after a panic.
unsafe fn put_languages(out: *mut Language, capacity: usize, f: impl FnOnce() -> Vec<Language>) -> i32 {
    let Ok(found) = caught(f) else { return -1 };
    let size = found.len().min(capacity);
    std::ptr::copy_nonoverlapping(found.as_ptr(), out, size);
    size as i32
}

/// # Safety
/// Pointers as src/text/language_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_language_identify(
    text: *const c_char,
    size: usize,
    out: *mut Language,
    capacity: usize,
) -> i32 {
    put_languages(out, capacity, || language::identify(bytes(text, size)))
}

/// # Safety
/// Pointers as src/text/language_c.h says.
#[no_mangle]
pub unsafe extern "C" fn saif_language_known(out: *mut Language, capacity: usize) -> i32 {
    put_languages(out, capacity, language::known)
}

/// # Safety
/// `text` was filled by this library; freeing twice is harmless.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_text_free(text: *mut Text) {
    unleak((*text).data as *mut u8, (*text).size);
    *text = Text { data: std::ptr::null_mut(), size: 0 };
}

/// # Safety
/// `ids` was filled by this library; freeing twice is harmless.
#[no_mangle]
pub unsafe extern "C" fn saif_hf_ids_free(ids: *mut Ids) {
    unleak((*ids).ids, (*ids).size);
    unleak((*ids).begin, (*ids).size);
    unleak((*ids).end, (*ids).size);
    *ids = Ids { ids: std::ptr::null_mut(), begin: std::ptr::null_mut(), end: std::ptr::null_mut(), size: 0 };
}
