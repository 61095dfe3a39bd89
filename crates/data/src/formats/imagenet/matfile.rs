//! Reader for MATLAB level-5 files, limited to ImageNet's `meta.mat`: an array of structs with a
//! number and a text each.
//!
//! Source: *MAT-File Format*, The MathWorks. A test compares with SciPy's `savemat`.

use std::collections::HashMap;
use std::io::Read;

/// Data element types.
const INT32: u32 = 5;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// Array classes.
const CELL: u8 = 1;
const STRUCT: u8 = 2;
const CHAR: u8 = 4;

/// Maximum size of an inflated variable in bytes; `meta.mat` has a few MB.
const MAX_BYTES: u64 = 256 << 20;

/// Maximum nesting of arrays; deeper files are treated as damaged.
const DEPTH: usize = 8;

const TRUNCATED: &str = "the file is truncated or damaged";

/// An array of a supported kind.
enum Array {
    Numbers(Vec<f64>),
    Text(String),
    Cells(Vec<Array>),
    /// Fields by name, each with one element per struct of the array.
    Structs(HashMap<String, Vec<Array>>),
}

/// Returns the WordNet ID of every `ILSVRC2012_ID` in the variable `synsets`.
pub(crate) fn synsets(bytes: &[u8]) -> Result<HashMap<usize, String>, String> {
    const HEADER: usize = 128;
    if bytes.starts_with(b"MATLAB 7.3") {
        return Err("it is in MATLAB's 7.3 format: save it with -v7".into());
    }
    if !bytes.starts_with(b"MATLAB 5.0") || bytes.get(126..HEADER) != Some(b"IM") {
        return Err("it is not a little-endian MATLAB file of version 5".into());
    }
    let mut rest = &bytes[HEADER..];
    while rest.len() >= 8 {
        let (kind, data) = element(&mut rest)?;
        let mut inflated = Vec::new();
        let (kind, data) = match kind {
            COMPRESSED => {
                let decoder = flate2::read::ZlibDecoder::new(data);
                decoder.take(MAX_BYTES).read_to_end(&mut inflated).map_err(|error| error.to_string())?;
                element(&mut &inflated[..])?
            }
            _ => (kind, data),
        };
        if kind != MATRIX {
            continue;
        }
        let (name, array) = array(data, DEPTH)?;
        if let (true, Array::Structs(fields)) = (name == "synsets", array) {
            return of_fields(&fields);
        }
    }
    Err("it has no struct array `synsets`".into())
}

/// Returns the WordNet ID of every class number in the struct array.
fn of_fields(fields: &HashMap<String, Vec<Array>>) -> Result<HashMap<usize, String>, String> {
    let field = |name: &str| fields.get(name).ok_or_else(|| format!("`synsets` has no field {name}"));
    let (numbers, ids) = (field("ILSVRC2012_ID")?, field("WNID")?);
    let pair = |(number, id): (&Array, &Array)| match (number, text(id)) {
        (Array::Numbers(number), Some(id)) if number.len() == 1 => Ok((number[0] as usize, id.trim().to_string())),
        _ => Err("`synsets` contains values other than numbers and texts".to_string()),
    };
    numbers.iter().zip(ids).map(pair).collect()
}

/// Returns a text, or the text in a single cell.
fn text(array: &Array) -> Option<&str> {
    match array {
        Array::Text(text) => Some(text),
        Array::Cells(cells) if cells.len() == 1 => text(&cells[0]),
        _ => None,
    }
}

/// Takes the next data element: its type and data.
fn element<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), String> {
    let word =
        |bytes: &[u8], at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    let tag = word(rest, 0).ok_or(TRUNCATED)?;
    // Data of at most four bytes are stored in the tag itself.
    let (kind, length, start) = match tag >> 16 {
        0 => (tag, word(rest, 4).ok_or(TRUNCATED)? as usize, 8),
        length => (tag & 0xffff, length as usize, 4),
    };
    let padded = match (start, kind) {
        (4, _) => 8,
        (_, COMPRESSED) => start + length,
        _ => start + length.next_multiple_of(8),
    };
    let data = rest.get(start..start + length).ok_or(TRUNCATED)?;
    *rest = rest.get(padded..).unwrap_or_default();
    Ok((kind, data))
}

/// Reads an array and its name.
fn array(mut data: &[u8], depth: usize) -> Result<(String, Array), String> {
    if data.is_empty() {
        return Ok((String::new(), Array::Cells(Vec::new())));
    }
    if depth == 0 {
        return Err(TRUNCATED.into());
    }
    let (_, flags) = element(&mut data)?;
    let class = *flags.first().ok_or(TRUNCATED)?;
    let (_, dimensions) = element(&mut data)?;
    let dimensions = dimensions.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let count = dimensions.fold(1, usize::saturating_mul);
    let (_, name) = element(&mut data)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let array = match class {
        CELL => Array::Cells(arrays(&mut data, count, depth)?),
        STRUCT => {
            let (kind, width) = element(&mut data)?;
            let width = width.try_into().map(i32::from_le_bytes).unwrap_or(0);
            if kind != INT32 || width <= 0 {
                return Err(TRUNCATED.into());
            }
            let (_, names) = element(&mut data)?;
            let names = names.chunks(width as usize);
            let names = names.map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_string());
            let names: Vec<String> = names.collect();
            if names.is_empty() || count > data.len() {
                return Err(TRUNCATED.into());
            }
            let mut fields: HashMap<String, Vec<Array>> = HashMap::new();
            // Fields are stored struct by struct.
            for _ in 0..count {
                for (name, value) in names.iter().zip(arrays(&mut data, names.len(), depth)?) {
                    fields.entry(name.clone()).or_default().push(value);
                }
            }
            Array::Structs(fields)
        }
        CHAR => {
            let (kind, data) = element(&mut data)?;
            Array::Text(match kind {
                // UTF-16.
                4 | 17 => {
                    let units: Vec<u16> =
                        data.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
                    String::from_utf16_lossy(&units)
                }
                _ => String::from_utf8_lossy(data).into_owned(),
            })
        }
        _ => {
            let (kind, data) = element(&mut data)?;
            Array::Numbers(numbers(kind, data).ok_or("it contains numbers of an unknown type")?)
        }
    };
    Ok((name, array))
}

/// Reads `count` arrays.
fn arrays(data: &mut &[u8], count: usize, depth: usize) -> Result<Vec<Array>, String> {
    let mut arrays = Vec::new();
    for _ in 0..count {
        let (kind, inner) = element(data)?;
        if kind != MATRIX {
            return Err(TRUNCATED.into());
        }
        arrays.push(array(inner, depth - 1)?.1);
    }
    Ok(arrays)
}

/// Converts the data of a numeric element; returns `None` for unknown types.
fn numbers(kind: u32, data: &[u8]) -> Option<Vec<f64>> {
    fn all<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        Some(data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect())
    }
    match kind {
        1 => all(data, |b| i8::from_le_bytes(b).into()),
        2 => all(data, |b: [u8; 1]| b[0].into()),
        3 => all(data, |b| i16::from_le_bytes(b).into()),
        4 => all(data, |b| u16::from_le_bytes(b).into()),
        5 => all(data, |b| i32::from_le_bytes(b).into()),
        6 => all(data, |b| u32::from_le_bytes(b).into()),
        7 => all(data, |b| f32::from_le_bytes(b).into()),
        9 => all(data, f64::from_le_bytes),
        12 => all(data, |b| i64::from_le_bytes(b) as f64),
        13 => all(data, |b| u64::from_le_bytes(b) as f64),
        _ => None,
    }
}
