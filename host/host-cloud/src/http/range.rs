//! The `Range` header of a request (RFC 9110 section 14.2), as S3 takes it: one range, or the whole file.

/// What of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: 200.
    Whole,
    /// From and up to a byte, both inside: 206.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// Nothing that is there: 416.
    Nothing,
}

/// Reads the header for a file of this size. What cannot be read, or asks for several ranges, asks for the whole file.
pub(super) fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header
        .and_then(|h| h.strip_prefix("bytes="))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Wanted::Whole;
    };
    let number = |text: &str| match text {
        "" => Ok(None),
        // Digits alone: `parse` would take a sign as well.
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(Some(digits.parse::<u64>().unwrap_or(u64::MAX)))
        }
        _ => Err(()),
    };
    match (number(first), number(last)) {
        (Ok(Some(first)), Ok(last)) => {
            let last = last.unwrap_or(u64::MAX);
            if last < first {
                Wanted::Whole
            } else if first >= size {
                Wanted::Nothing
            } else {
                let last = last.min(size - 1);
                Wanted::Part { first, last }
            }
        }
        // So many from the end.
        (Ok(None), Ok(Some(count))) => {
            if count == 0 || size == 0 {
                Wanted::Nothing
            } else {
                let first = size - count.min(size);
                Wanted::Part {
                    first,
                    last: size - 1,
                }
            }
        }
        (Ok(None), Ok(None)) | (Err(()), _) | (_, Err(())) => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file_or_there_is_none() {
        let part = |first, last| Wanted::Part { first, last };
        let rows = [
            (None, Wanted::Whole),
            (Some("bytes=0-0"), part(0, 0)),
            (Some("bytes=4-7"), part(4, 7)),
            (Some("bytes=4-"), part(4, 9)),
            (Some("bytes=9-100"), part(9, 9)),
            (Some("bytes=0-99999999999999999999"), part(0, 9)),
            (Some("bytes=-3"), part(7, 9)),
            (Some("bytes=-100"), part(0, 9)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=99999999999999999999-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=7-4"), Wanted::Whole),
            (Some("bytes=0-1,3-4"), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some(""), Wanted::Whole),
        ];
        for (header, wanted) in rows {
            assert_eq!(parse(header, 10), wanted, "{header:?}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Nothing);
        assert_eq!(parse(Some("bytes=-1"), 0), Wanted::Nothing);
    }
}
