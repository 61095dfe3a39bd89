//! Height and width of images.

use std::fmt;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Height and width of an image in pixels.
///
/// Recipes and model files contain a square as a number and a rectangle as `[height, width]`.
/// Prints `224` or `192×320`, and with `{:#}` always both sides, `224×224`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl ImageSize {
    /// Returns the size of a square.
    pub const fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }

    /// Returns height and width.
    pub const fn sides(self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Returns whether height and width are equal.
    pub fn is_square(self) -> bool {
        self.height == self.width
    }

    /// Returns the length of the shorter side.
    pub fn shorter(self) -> usize {
        self.height.min(self.width)
    }

    /// Returns the length of the longer side.
    pub fn longer(self) -> usize {
        self.height.max(self.width)
    }

    /// Applies a function to both sides.
    pub fn map(self, side: impl Fn(usize) -> usize) -> Self {
        Self { height: side(self.height), width: side(self.width) }
    }

    /// Returns the size with sides of at least one pixel.
    pub(crate) fn nonempty(self) -> Self {
        self.map(|side| side.max(1))
    }

    /// Returns width and height, the order of pixel positions.
    pub(crate) fn width_height(self) -> (usize, usize) {
        (self.width, self.height)
    }
}

impl From<usize> for ImageSize {
    /// Returns the size of a square.
    fn from(side: usize) -> Self {
        Self::square(side)
    }
}

impl From<[usize; 2]> for ImageSize {
    /// Takes height and width.
    fn from([height, width]: [usize; 2]) -> Self {
        Self { height, width }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.is_square() && !f.alternate() {
            true => self.height.fmt(f),
            false => write!(f, "{}×{}", self.height, self.width),
        }
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.is_square() {
            true => self.height.serialize(serializer),
            false => self.sides().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ImageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Sides)
    }
}

struct Sides;

impl<'de> Visitor<'de> for Sides {
    type Value = ImageSize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a size in pixels: a whole number for a square, or [height, width]")
    }

    fn visit_u64<E: Error>(self, side: u64) -> Result<ImageSize, E> {
        let side = usize::try_from(side).map_err(|_| E::invalid_value(Unexpected::Unsigned(side), &self))?;
        Ok(side.into())
    }

    fn visit_i64<E: Error>(self, side: i64) -> Result<ImageSize, E> {
        let side = usize::try_from(side).map_err(|_| E::invalid_value(Unexpected::Signed(side), &self))?;
        Ok(side.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ImageSize, A::Error> {
        let mut sides = Vec::with_capacity(2);
        while let Some(side) = list.next_element::<usize>()? {
            sides.push(side);
        }
        let sides = <[usize; 2]>::try_from(sides);
        sides.map(ImageSize::from).map_err(|sides| A::Error::invalid_length(sides.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_numbers_and_rectangles_are_lists() {
        let read = |text: &str| serde_json::from_str::<ImageSize>(text);
        for (text, size) in [("224", ImageSize::square(224)), ("[192,320]", [192, 320].into())] {
            assert_eq!(read(text).unwrap(), size);
            assert_eq!(serde_json::to_string(&size).unwrap(), text);
        }
        assert_eq!(read("[7, 7]").unwrap(), ImageSize::square(7));
        for text in ["-1", "[1]", "[1, 2, 3]", "[1, -2]", "[1, \"2\"]", "\"224\"", "2.5", "true", "[]", "{}"] {
            assert!(read(text).is_err(), "{text}");
        }
        let error = read("[1, 2, 3]").unwrap_err().to_string();
        assert!(error.contains("invalid length 3, expected a size in pixels"), "{error}");
    }

    #[test]
    fn sizes_print_height_first() {
        let (square, wide) = (ImageSize::square(224), ImageSize::from([192, 320]));
        assert_eq!([format!("{square}"), format!("{square:#}"), format!("{wide}")], ["224", "224×224", "192×320"]);
        assert_eq!((wide.shorter(), wide.longer(), wide.width_height()), (192, 320, (320, 192)));
    }
}
