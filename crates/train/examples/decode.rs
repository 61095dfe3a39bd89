//! Decodes image files for `scripts/check_jpeg.py`: for each path from standard input, width and
//! height as little-endian `u32`, both 0 for an error, then the RGB pixels.

use std::error::Error;
use std::io::{self, Write};

use mbconv_train::data::decode_rgb;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for path in io::stdin().lines() {
        let path = path?;
        match decode_rgb(&std::fs::read(&path)?) {
            Ok(image) => {
                out.write_all(&(image.width as u32).to_le_bytes())?;
                out.write_all(&(image.height as u32).to_le_bytes())?;
                out.write_all(&image.data)?;
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                out.write_all(&[0; 8])?;
            }
        }
        out.flush()?;
    }
    Ok(())
}
