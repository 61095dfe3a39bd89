//! Path patterns: `{000..146}` and `{train,val}` are expanded and `*`, `?` and `[…]` matched as by
//! a shell.

use std::path::PathBuf;

use crate::error::DataError;

/// Maximum number of paths of a pattern.
const MOST: usize = 1 << 20;

/// Returns whether a text is a pattern, or several paths joined by `::` as in WebDataset.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains("::") || text.contains(['{', '*', '?', '['])
}

/// Returns the files of a pattern in its order; the matches of a `*` are sorted.
///
/// # Errors
/// Unbalanced braces; a path from braces that does not exist; a wildcard without matches.
pub(crate) fn expand(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let refused = |why: &str| DataError::Pattern { pattern: pattern.into(), why: why.into() };
    let mut files = Vec::new();
    for part in pattern.split("::") {
        for path in braces(part).map_err(refused)? {
            if !path.contains(['*', '?', '[']) {
                let path = PathBuf::from(path);
                if !path.is_file() {
                    return Err(DataError::MissingFile { path });
                }
                files.push(path);
                continue;
            }
            let found = glob::glob(&path).map_err(|error| refused(&error.to_string()))?;
            let before = files.len();
            files.extend(found.filter_map(Result::ok).filter(|path| path.is_file()));
            if files.len() == before {
                return Err(refused("no file matches it"));
            }
        }
    }
    Ok(files)
}

/// Expands braces: lists `{a,b}`, zero-padded ranges `{08..11}`, and nested combinations.
fn braces(text: &str) -> Result<Vec<String>, &'static str> {
    let Some(open) = text.find('{') else {
        return if text.contains('}') { Err("a } without a matching {") } else { Ok(vec![text.into()]) };
    };
    let mut depth = 0;
    let mut commas = vec![open];
    let close = text[open..].char_indices().map(|(at, c)| (open + at, c)).find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => commas.push(at),
            _ => {}
        }
        (depth == 0).then_some(at)
    });
    let close = close.ok_or("a { without a matching }")?;
    commas.push(close);
    let inner: Vec<String> = match range(&text[open + 1..close])? {
        Some(numbers) => numbers,
        None => {
            let mut all = Vec::new();
            for pair in commas.windows(2) {
                all.extend(braces(&text[pair[0] + 1..pair[1]])?);
            }
            all
        }
    };
    let rest = braces(&text[close + 1..])?;
    if inner.len().saturating_mul(rest.len()) > MOST {
        return Err("it expands to too many paths");
    }
    let before = &text[..open];
    Ok(inner.iter().flat_map(|inner| rest.iter().map(move |rest| format!("{before}{inner}{rest}"))).collect())
}

/// Expands `first..last`; if either has leading zeros, all numbers are padded to the wider one.
fn range(text: &str) -> Result<Option<Vec<String>>, &'static str> {
    let Some((first, last)) = text.split_once("..").filter(|_| !text.contains(['{', ','])) else { return Ok(None) };
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<usize>().map_err(|_| "a range must have two numbers, as in {000..146}"),
        false => Err("a range must have two numbers, as in {000..146}"),
    };
    let (from, to) = (number(first)?, number(last)?);
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    if from.abs_diff(to) >= MOST {
        return Err("it expands to too many paths");
    }
    let write = |n: usize| format!("{n:0width$}");
    Ok(Some(if from <= to { (from..=to).map(write).collect() } else { (to..=from).rev().map(write).collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        let expanded = |text| braces(text).unwrap().join(" ");
        assert_eq!(expanded("a-{08..11}.tar"), "a-08.tar a-09.tar a-10.tar a-11.tar");
        assert_eq!(expanded("a-{000..002}"), "a-000 a-001 a-002");
        assert_eq!(expanded("{9..11}"), "9 10 11");
        assert_eq!(expanded("{2..0}x"), "2x 1x 0x");
        assert_eq!(expanded("{train-{0..1},val-{0,1}}.tar"), "train-0.tar train-1.tar val-0.tar val-1.tar");
        assert_eq!(expanded("{a,b}{1,2}"), "a1 a2 b1 b2");
        assert_eq!(expanded("plain"), "plain");
        for wrong in ["a{0..", "a}0", "{0..x}", "{..}", "{0..99999999999}", "{-1..2}", "{0..999999}{0..999999}"] {
            assert!(braces(wrong).is_err(), "{wrong}");
        }
    }
}
