//! Client tokens: how an answer finds its request.
//!
//! `u<n>-<8 hex of the start's seed>`: the counter tells requests of one start apart, the seed tells starts apart, so
//! that a late answer to a request of a previous life matches nothing. At most 1 + 20 + 1 + 8 = 30 of the 64 bytes
//! that the service allows.

use alloc::string::String;

use crate::text::{push_decimal, push_hex8};

/// One client token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientToken {
    /// Number of the request in this start, from 0.
    pub number: u64,
    /// This start's seed, folded to 32 bits.
    pub seed: u32,
}

impl ClientToken {
    /// The token as it goes on the wire.
    #[must_use]
    pub fn text(self) -> String {
        let mut out = String::new();
        self.push(&mut out);
        out
    }

    /// Reads a token of this form back; none for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut token = Self { number: 0, seed: 0 };
        let mut in_seed = false;
        for byte in text.bytes() {
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            if byte == b'-' {
                in_seed = true;
            } else if in_seed {
                token.seed = token.seed << 4 | digit;
            } else {
                token.number = token.number.wrapping_mul(10).wrapping_add(digit.into());
            }
        }
        // Whatever was not of this form does not come out as it went in.
        (token.text() == text).then_some(token)
    }

    pub(crate) fn push(self, out: &mut String) {
        out.push('u');
        push_decimal(out, self.number);
        out.push('-');
        push_hex8(out, self.seed);
    }
}

/// Makes the tokens of one start, no two alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTokens {
    next: ClientToken,
}

impl ClientTokens {
    /// Begins to count at 0 under the seed of this start.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Both halves count: a host that seeds from a small counter still gets different tokens.
        let seed = (seed ^ (seed >> 32)) as u32;
        Self {
            next: ClientToken { number: 0, seed },
        }
    }

    /// The next token.
    pub fn draw(&mut self) -> ClientToken {
        let token = self.next;
        self.next.number = self.next.number.wrapping_add(1);
        token
    }
}

/// The payload that asks for a job, on [`super::next_get`], [`super::start_next`] or [`super::describe_job`].
#[must_use]
pub fn job_request(token: ClientToken) -> String {
    let mut out = String::from("{\"clientToken\":\"");
    token.push(&mut out);
    out.push_str("\"}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_request_has_exactly_these_bytes() {
        let mut tokens = ClientTokens::new(0x1234_5678_0000_0000);
        assert_eq!(
            job_request(tokens.draw()),
            r#"{"clientToken":"u0-12345678"}"#
        );
        assert_eq!(
            job_request(tokens.draw()),
            r#"{"clientToken":"u1-12345678"}"#
        );
    }

    #[test]
    fn the_last_digit_of_the_counter_is_kept() {
        for (number, text) in [
            (9, "u9-000000ff"),
            (10, "u10-000000ff"),
            (19, "u19-000000ff"),
        ] {
            assert_eq!(ClientToken { number, seed: 0xff }.text(), text);
        }
    }

    #[test]
    fn the_longest_token_fits_the_service_and_reads_back() {
        let longest = ClientToken {
            number: u64::MAX,
            seed: u32::MAX,
        };
        assert_eq!(longest.text().len(), 30);
        assert_eq!(ClientToken::parse(&longest.text()), Some(longest));
    }

    #[test]
    fn other_texts_are_not_our_tokens() {
        let rows = [
            "",
            "rdy",
            "0:mything",
            "u-00000000",
            "u1-0000000",
            "u1-000000000",
            "u01-00000000",
            "u1-0000000G",
            "u1-ABCDEF00",
            "u+1-00000000",
            "u18446744073709551616-00000000",
            "u1",
        ];
        for text in rows {
            assert_eq!(ClientToken::parse(text), None, "{text}");
        }
    }
}
