//! Whether the head of an answer is that of the range that was asked for (RFC 9110 sections 14 and 15.3.7).

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};

use crate::error::FetchError;

/// A range that was asked for: at least one byte, and the end fits into 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Range {
    /// The last byte asked for.
    pub(crate) fn last(self) -> u64 {
        self.offset
            .saturating_add(u64::from(self.length.max(1)) - 1)
    }
}

/// What a 206 is about to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Size of the whole file, where the server knows it.
    pub(crate) total: Option<u64>,
    /// Bytes of the body: at most the length that was asked for.
    pub(crate) length: usize,
}

/// Checks the head of a 206.
pub(crate) fn check(headers: &HeaderMap, asked: Range) -> Result<Announced, FetchError> {
    if let Some(kind) = headers.get(CONTENT_TYPE)
        && kind
            .as_bytes()
            .get(..10)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
    {
        return Err(FetchError::Multipart);
    }
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(FetchError::Encoded);
    }
    let mut ranges = headers.get_all(CONTENT_RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Err(FetchError::NoRange);
    };
    let (first, last, total) = range
        .to_str()
        .ok()
        .and_then(parse)
        .ok_or(FetchError::NoRange)?;
    // A range over the end of the file is shortened to it, and only to it.
    let expected_last = match total {
        Some(total) => asked.last().min(total.saturating_sub(1)),
        None => asked.last(),
    };
    if first != asked.offset || last != expected_last {
        return Err(FetchError::WrongRange {
            first,
            last,
            offset: asked.offset,
            length: asked.length,
        });
    }
    // At most `asked.length`, which is 32 bits.
    let length = (last - first + 1) as usize;
    if let Some(said) = headers.get(CONTENT_LENGTH) {
        let said = said.to_str().ok().and_then(|s| s.parse::<u64>().ok());
        match said {
            Some(said) if said == length as u64 => {}
            said => {
                return Err(FetchError::Length {
                    said: said.unwrap_or(u64::MAX),
                    expected: length,
                });
            }
        }
    }
    Ok(Announced { total, length })
}

/// `bytes first-last/total`, where `total` may be `*`.
fn parse(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, rest) = text.split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = match total {
        "*" => None,
        digits => Some(number(digits)?),
    };
    let is_inside = total.is_none_or(|total| last < total);
    (first <= last && is_inside).then_some((first, last, total))
}

/// Digits and nothing else: `parse` alone would take a sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// Asked for: 100 bytes from 50.
    fn checked(headers: &[(&'static str, &str)]) -> Result<Announced, FetchError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        check(
            &map,
            Range {
                offset: 50,
                length: 100,
            },
        )
    }

    #[test]
    fn a_range_that_was_asked_for_is_taken() {
        let rows: &[(&str, Option<u64>, usize)] = &[
            ("bytes 50-149/1000", Some(1000), 100),
            ("bytes 50-149/150", Some(150), 100),
            ("Bytes 50-149/*", None, 100),
            ("bytes 50-59/60", Some(60), 10),
            ("bytes 50-50/51", Some(51), 1),
        ];
        for (range, total, length) in rows {
            let expected = Announced {
                total: *total,
                length: *length,
            };
            assert_eq!(
                checked(&[("content-range", range)]),
                Ok(expected),
                "{range}"
            );
            let said = length.to_string();
            let headers = [("content-range", *range), ("content-length", said.as_str())];
            assert_eq!(checked(&headers), Ok(expected));
        }
    }

    #[test]
    fn any_other_range_is_refused() {
        let rows = [
            "bytes 0-149/1000",
            "bytes 51-149/1000",
            "bytes 50-150/1000",
            "bytes 50-148/1000",
            "bytes 50-148/*",
            "bytes 50-59/1000",
        ];
        for range in rows {
            let error = checked(&[("content-range", range)]).unwrap_err();
            assert!(
                matches!(error, FetchError::WrongRange { .. }),
                "{range}: {error}"
            );
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let rows = [
            "",
            "bytes",
            "bytes */1000",
            "bytes 50-149",
            "bytes 149-50/1000",
            "bytes 50-149/100",
            "bytes +50-149/1000",
            "bytes 50-149/-1",
            "bytes 50-99999999999999999999/1000",
            "lines 50-149/1000",
            "bytes  50-149/1000",
        ];
        for range in rows {
            assert_eq!(
                checked(&[("content-range", range)]),
                Err(FetchError::NoRange),
                "{range}"
            );
        }
        assert_eq!(checked(&[]), Err(FetchError::NoRange));
        let twice = ("content-range", "bytes 50-149/1000");
        assert_eq!(checked(&[twice, twice]), Err(FetchError::NoRange));
    }

    #[test]
    fn a_body_that_cannot_be_the_range_is_refused_before_it_is_read() {
        let range = ("content-range", "bytes 50-149/1000");
        for said in ["99", "101", "18446744073709551615", "x"] {
            let error = checked(&[range, ("content-length", said)]).unwrap_err();
            assert!(
                matches!(error, FetchError::Length { expected: 100, .. }),
                "{said}"
            );
        }
        let kind = ("content-type", "Multipart/byteranges; boundary=x");
        assert_eq!(checked(&[range, kind]), Err(FetchError::Multipart));
        assert_eq!(
            checked(&[range, ("content-encoding", "gzip")]),
            Err(FetchError::Encoded)
        );
        let fine = [
            range,
            ("content-encoding", "identity"),
            ("content-type", "text/plain"),
        ];
        assert!(checked(&fine).is_ok());
    }

    #[test]
    fn the_longest_range_does_not_overflow() {
        let asked = Range {
            offset: u64::MAX - 1,
            length: u32::MAX,
        };
        assert_eq!(asked.last(), u64::MAX);
        let map = HeaderMap::from_iter([(
            CONTENT_RANGE,
            HeaderValue::from_static("bytes 0-18446744073709551615/*"),
        )]);
        assert!(check(&map, asked).is_err());
    }
}
