//! Tests with Parquet files whose metadata claim more than the file contains. Memory use must be
//! bounded by the file's length.

use std::io::Write;

use proptest::prelude::*;

use crate::formats::parquet::thrift::{Fields, string, unsigned};
use crate::formats::parquet::write::{Element, FileWriter, Meaning, Page, Physical, Repetition, append_bytes};
use crate::formats::parquet::*;

const INT64: i32 = 2;
const BYTE_ARRAY: i32 = 6;
const PLAIN: i32 = 0;
const DICTIONARY: i32 = 8;
const UNCOMPRESSED: i32 = 0;

/// Returns a page: a data page of version 1, or a dictionary if `encoding` is `None`.
fn page(encoding: Option<i32>, rows: i32, size: i32, body: &[u8]) -> Vec<u8> {
    let stored = body.len() as i32;
    let header = match encoding {
        Some(encoding) => {
            let data = Fields::new().i32(1, rows).i32(2, encoding).i32(3, 3).i32(4, 3);
            Fields::new().i32(1, 0).i32(2, size).i32(3, stored).inner(5, data)
        }
        None => {
            let dictionary = Fields::new().i32(1, rows).i32(2, PLAIN);
            Fields::new().i32(1, 2).i32(2, size).i32(3, stored).inner(7, dictionary)
        }
    };
    [header.end(), body.to_vec()].concat()
}

/// A column of a file with one row group.
struct Chunk {
    name: &'static str,
    kind: i32,
    codec: i32,
    pages: Vec<u8>,
    /// Decompressed length of the pages.
    size: i64,
}

fn chunk(name: &'static str, kind: i32, pages: Vec<u8>) -> Chunk {
    let size = pages.len() as i64;
    Chunk { name, kind, codec: UNCOMPRESSED, pages, size }
}

/// Returns definition levels of one value for an optional column, followed by `values`.
fn leveled(rows: u64, level: u8, values: &[u8]) -> Vec<u8> {
    let run = [unsigned(rows << 1), vec![level]].concat();
    [&(run.len() as u32).to_le_bytes()[..], &run, values].concat()
}

/// Returns byte strings in plain encoding.
fn plain(values: &[&[u8]]) -> Vec<u8> {
    values.iter().flat_map(|value| [&(value.len() as u32).to_le_bytes()[..], value].concat()).collect()
}

fn data_page(encoding: i32, rows: u64, body: &[u8]) -> Vec<u8> {
    page(Some(encoding), rows as i32, body.len() as i32, body)
}

fn element(name: &str, kind: Option<i32>, children: i32) -> Vec<u8> {
    let fields = Fields::new();
    let fields = if let Some(kind) = kind { fields.i32(1, kind) } else { fields };
    let fields = fields.i32(3, 1).text(4, name);
    if children > 0 { fields.i32(5, children).end() } else { fields.end() }
}

fn file_of(metadata: &[u8], body: &[u8]) -> Vec<u8> {
    [b"PAR1", body, metadata, &(metadata.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

/// Returns a file with these columns and the claimed number of rows per group; all groups refer to
/// the same bytes.
fn file(groups: &[i64], chunks: &[Chunk]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut columns = Vec::new();
    for Chunk { name, kind, codec, pages, size } in chunks {
        let start = 4 + body.len() as i64;
        body.extend(pages);
        let description = Fields::new().i32(1, *kind).list(3, Fields::BINARY, [string(name)]).i32(4, *codec);
        let description = description.i64(6, *size).i64(7, pages.len() as i64).i64(9, start);
        columns.push(Fields::new().i64(2, start).inner(3, description).end());
    }
    let leaves = chunks.iter().map(|chunk| element(chunk.name, Some(chunk.kind), 0));
    let schema: Vec<Vec<u8>> = [element("schema", None, chunks.len() as i32)].into_iter().chain(leaves).collect();
    let groups = groups.iter().map(|rows| Fields::new().structs(1, columns.clone()).i64(3, *rows).end());
    let metadata = Fields::new().i32(1, 1).structs(2, schema).i64(3, 1).structs(4, groups).end();
    file_of(&metadata, &body)
}

/// Returns a label column with `rows` times the number 7.
fn labels(rows: u64) -> Chunk {
    let dictionary = page(None, 1, 8, &7i64.to_le_bytes());
    let body = leveled(rows, 1, &[0]);
    chunk("label", INT64, [dictionary, data_page(DICTIONARY, rows, &body)].concat())
}

fn images(values: &[&[u8]]) -> Chunk {
    let rows = values.len() as u64;
    chunk("image", BYTE_ARRAY, data_page(PLAIN, rows, &leveled(rows, 1, &plain(values))))
}

/// Reads the labels of a file and decodes all images.
fn read(bytes: &[u8]) -> Result<(Shard, Vec<Values>), String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let path = file.path().to_path_buf();
    let shard = Shard::read(&path, &TableOptions::default()).map_err(|error| error.to_string())?;
    let images = shard.parts.iter().map(|part| part.read(file.as_file())).collect::<Result<_, _>>()?;
    Ok((shard, images))
}

fn refused(bytes: &[u8], part: &str) {
    let error = read(bytes).err().unwrap_or_else(|| panic!("read, instead of: {part}"));
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_small_file_is_read() {
    let (shard, images) = read(&file(&[2], &[images(&[b"first", b"second"]), labels(2)])).unwrap();
    assert_eq!(shard.labels.iter().map(|label| &**label).collect::<Vec<_>>(), ["7", "7"]);
    let [Values::Bytes { data, ranges }] = &images[..] else { panic!("other values") };
    let texts: Vec<&[u8]> = ranges.iter().map(|range| &data[range.clone().unwrap()]).collect();
    assert_eq!(texts, [&b"first"[..], b"second"]);
}

#[test]
fn written_columns_are_read() {
    const SCHEMA: [Element; 5] = [
        Element::group("schema", Repetition::Required, 2),
        Element::column("label", Repetition::Optional, Physical::ByteArray).with(Meaning::Utf8),
        Element::group("score", Repetition::Required, 1).with(Meaning::List),
        Element::group("list", Repetition::Repeated, 1),
        Element::column("element", Repetition::Required, Physical::Float),
    ];
    const LABEL: write::Leaf = write::Leaf { path: &["label"], physical: Physical::ByteArray };
    const SCORE: write::Leaf = write::Leaf { path: &["score", "list", "element"], physical: Physical::Float };
    let mut file = tempfile::tempfile().unwrap();
    let mut writer = FileWriter::new(&mut file, &SCHEMA).unwrap();
    for rows in [&[Some("a"), None][..], &[None, Some("bc"), Some("d")]] {
        let pages = |encode: fn(&mut Page, Option<&str>)| {
            rows.iter().map(move |&row| {
                let mut page = Page { count: 1, ..Page::default() };
                encode(&mut page, row);
                page
            })
        };
        let labels = pages(|page, row| {
            page.definition.push(u8::from(row.is_some()), 1);
            row.into_iter().for_each(|text| append_bytes(text.as_bytes(), &mut page.values));
        });
        let scores = pages(|page, row| {
            page.repetition.push(0, 1);
            page.definition.push(1, 1);
            page.values.extend((row.map_or(0, str::len) as f32 + 0.5).to_le_bytes());
        });
        writer.write_column(&LABEL, labels).unwrap();
        writer.write_column(&SCORE, scores).unwrap();
        writer.end_group(rows.len());
    }
    writer.finish(&[("huggingface", "{}")]).unwrap();

    let description = Description::read(Path::new("written.parquet"), &file).unwrap();
    assert_eq!(description.huggingface.as_deref(), Some("{}"));
    let read = |column: usize| description.chunks(column).map(|chunk| chunk.read(&file).unwrap()).collect::<Vec<_>>();
    let mut labels = Vec::new();
    for values in read(0) {
        let Values::Bytes { data, ranges } = values.0 else { panic!("other values") };
        labels.extend(ranges.into_iter().map(|range| range.map(|range| data[range].to_vec())));
    }
    assert_eq!(labels, [Some(&b"a"[..]), None, None, Some(b"bc"), Some(b"d")].map(|text| text.map(<[u8]>::to_vec)));
    let mut scores = Vec::new();
    for values in read(1) {
        let Values::Floats(values) = values.0 else { panic!("other values") };
        scores.extend(values.into_iter().flatten());
    }
    assert_eq!(scores, [1.5, 0.5, 0.5, 2.5, 1.5]);
}

#[test]
fn claimed_rows_are_bounded_by_the_length_of_the_file() {
    let absent = |rows: u64| chunk("image", BYTE_ARRAY, data_page(PLAIN, rows, &leveled(rows, 0, &[])));
    for shift in [20, 30] {
        let rows = 1 << shift;
        let bytes = file(&[rows as i64], &[absent(rows), labels(rows)]);
        refused(&bytes, &format!("claims {rows} rows, more than {} bytes can contain", bytes.len()));
    }
    let claims = |groups: &[i64]| file(groups, &[images(&[b"first"]), labels(1)]);
    refused(&claims(&[1 << 60]), "rows, more than");
    refused(&claims(&[i64::MAX; 4]), "rows, more than");
    refused(&claims(&[-1]), "is inconsistent");
    // Fewer rows in the metadata than in the pages, and more.
    let pages = |rows: u64| [images(&[b"first"]), labels(rows)];
    refused(&file(&[1], &pages(1 << 30)), "differs from its metadata");
    refused(&file(&[2], &pages(2)), "found 1 rows instead of 2");
    let three = file(&[1], &[images(&[b"first", b"second", b"third"]), labels(1)]);
    refused(&three, "differs from its metadata");
}

#[test]
fn claimed_sizes_are_bounded_by_the_stored_bytes() {
    // A page that claims 2 GB from 20 bytes, with every codec.
    for codec in [1, 2, 6] {
        let pages = page(Some(PLAIN), 1, i32::MAX, &[0; 20]);
        let image = Chunk { codec, ..chunk("image", BYTE_ARRAY, pages) };
        refused(&file(&[1], &[image, labels(1)]), "a page header is damaged");
        let pages = page(Some(PLAIN), 1, 8, &[0; 20]);
        let image = Chunk { codec, size: 1 << 40, ..chunk("image", BYTE_ARRAY, pages) };
        assert!(read(&file(&[1], &[image, labels(1)])).is_err());
    }
    // Pages that together decompress to more than the metadata claim: each has 15 MiB of zeros.
    let zeros = leveled(1, 1, &plain(&[&vec![0; 15 << 20]]));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&zeros).unwrap();
    let pages = page(Some(PLAIN), 1, zeros.len() as i32, &packed.finish().unwrap()).repeat(2);
    let image = Chunk { codec: 2, ..chunk("image", BYTE_ARRAY, pages) };
    refused(&file(&[2], &[image, labels(2)]), "larger than its metadata says");
}

#[test]
fn dictionaries_are_bounded_and_not_copied() {
    let large = vec![b'x'; 100_000];
    let dictionary = |rows: i32| page(None, rows, large.len() as i32 + 4, &plain(&[&large]));
    const ROWS: u64 = 50_000;
    let column = |name, pages: Vec<Vec<u8>>| chunk(name, BYTE_ARRAY, pages.concat());
    let places = || data_page(DICTIONARY, ROWS, &leveled(ROWS, 1, &[0]));
    let same = |name| column(name, vec![dictionary(1), places()]);
    let bytes = file(&[ROWS as i64], &[same("image"), same("label")]);
    let (shard, images) = read(&bytes).unwrap();
    assert_eq!(shard.labels.len(), ROWS as usize);
    assert!(shard.labels.iter().all(|label| Arc::ptr_eq(label, &shard.labels[0])));
    let [Values::Bytes { data, ranges }] = &images[..] else { panic!("other values") };
    assert_eq!((ranges.len(), data[ranges[49_999].clone().unwrap()].len()), (ROWS as usize, large.len()));
    assert!(data.len() < bytes.len());

    let claims = column("image", vec![dictionary(i32::MAX), places()]);
    refused(&file(&[ROWS as i64], &[claims, labels(ROWS)]), "its dictionary is damaged");
    let two = column("image", vec![dictionary(1), dictionary(1), places()]);
    refused(&file(&[ROWS as i64], &[two, labels(ROWS)]), "its dictionary is damaged");
    // An index beyond the dictionary's only value.
    let beyond = column("image", vec![dictionary(1), data_page(DICTIONARY, 1, &leveled(1, 1, &[8, 2, 5]))]);
    refused(&file(&[1], &[beyond, labels(1)]), "is truncated or damaged");
}

#[test]
fn claimed_lengths_of_texts_and_lists_are_bounded() {
    let long = |count: u64| [&[0x18][..], &unsigned(count)].concat();
    refused(&file_of(&long(1 << 60), b""), "its metadata is damaged");
    let list = [&[0x19, 0xF0 | Fields::BINARY][..], &unsigned(1 << 60)].concat();
    refused(&file_of(&list, b""), "its metadata is damaged");
    // A byte string that claims 4 GB.
    let body = leveled(1, 1, &[0xff; 8]);
    let image = chunk("image", BYTE_ARRAY, data_page(PLAIN, 1, &body));
    refused(&file(&[1], &[image, labels(1)]), "is truncated or damaged");
}

#[test]
fn nested_columns_share_the_names_above_them() {
    let schema = |elements: Vec<Vec<u8>>| Fields::new().i32(1, 1).structs(2, elements).end();
    let deep = (0..1000).map(|_| element("group", None, 1)).chain([element("leaf", Some(INT64), 0)]);
    refused(&file_of(&schema(deep.collect()), b""), "is inconsistent");
    refused(&file_of(&schema(vec![element("schema", None, i32::MAX)]), b""), "is inconsistent");
    let structures = [&[0x1c][..], &[0x1c; 1000]].concat();
    refused(&file_of(&structures, b""), "its metadata is damaged");

    let leaves = (0..100).map(|_| element("leaf", Some(INT64), 0));
    let elements = [element("schema", None, 1), element(&"long".repeat(1000), None, 100)].into_iter().chain(leaves);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&file_of(&schema(elements.collect()), b"")).unwrap();
    let leaves = Description::read(Path::new("nested.parquet"), &file).unwrap().leaves;
    assert_eq!(leaves.len(), 100);
    assert!(leaves.iter().all(|leaf| Arc::ptr_eq(&leaf.path[0], &leaves[0].path[0])));
}

proptest! {
    #[test]
    fn modified_files_decode_to_bounded_memory(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = file(&[3], &[images(&[b"first", b"second", b"third"]), labels(3)]);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok((shard, images)) = read(&bytes) {
            prop_assert!(shard.labels.len() <= bytes.len() + (1 << 16));
            for values in images {
                if let Values::Bytes { data, .. } = values {
                    prop_assert!(data.len() <= bytes.len());
                }
            }
        }
    }
}
