//! What drivers of guests with a kernel of their own share: their images, by file or by name, and the words that a guest
//! is told its address with.

mod image;
mod images;
mod source;
mod template;
#[cfg(test)]
pub(super) mod testing;
mod words;

pub use image::ImageError;
pub(super) use images::Images;
pub use source::{ImageFile, ImageSource};
pub(super) use template::{Values, Word};
pub(super) use words::{values, words_of};
