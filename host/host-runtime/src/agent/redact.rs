//! What does not leave the gateway in a trace: images, and secrets.
//!
//! Both keep their length, so that an agent that is given the trace does the same with it. The bulk of a block message or
//! of a range becomes zeros (in base64 `A`, which decodes to zeros). A secret becomes a token: the same secret the same
//! token wherever it stands in one trace, on the way in and out. Secrets are the values in the query of an address (what
//! signs a pre-signed one), a login in an address, and JSON members that are called like one. The rules look at bytes and
//! know no protocol; what a custom job calls otherwise stays as it is.

use sha2::{Digest as _, Sha256};

use super::tap::{Answer, Ask, Bulk, End, Exchange, Order};
use super::{Event, Saved, Turn};
use crate::types::{Failure, Outcome, Started};

/// What a token begins with; a value that does is left alone.
pub(crate) const MARK: &str = "zq0";

/// Values shorter than this are no secrets: numbers, flags.
const SECRET_MIN_BYTES: usize = 6;

/// Byte strings in CBOR from this length on are bulk: a block has at least 256 bytes.
const CBOR_BULK_MIN_BYTES: usize = 128;

/// Base64 in JSON from this length on is bulk, whatever it is called: a signature of RSA-4096 has 684.
const TEXT_BULK_MIN_BYTES: usize = 1024;

/// A body of HTTP from this length on is bulk.
const BODY_BULK_MIN_BYTES: usize = 128;

/// Parts of names of JSON members and settings whose values are secrets.
const NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "privatekey",
    "accesskey",
    "apikey",
    "authorization",
];

/// Makes the tokens of one trace.
pub(crate) struct Veil {
    salt: [u8; 16],
}

impl Veil {
    pub(crate) fn new(salt: [u8; 16]) -> Self {
        Self { salt }
    }

    /// Take images and secrets out of an exchange; returns what the images were.
    pub(crate) fn cover(&self, exchange: &mut Exchange) -> Vec<Bulk> {
        let mut bulks = Vec::new();
        self.ask(&mut exchange.ask, &mut bulks);
        for (order, answer) in &mut exchange.calls {
            self.order(order);
            match answer {
                Answer::Started(Started::Done(Outcome::Failed(failure)))
                | Answer::NoProof(failure) => self.failure(failure),
                Answer::None | Answer::Token(_) | Answer::Started(_) | Answer::Proof(_) => {}
            }
        }
        self.end(&mut exchange.end);
        bulks
    }

    /// The same of what was asked.
    pub(crate) fn ask(&self, ask: &mut Ask, bulks: &mut Vec<Bulk>) {
        match ask {
            Ask::Start(info) => {
                let targets = info.config.targets.iter_mut();
                let settings = targets.flat_map(|target| target.settings.iter_mut());
                for setting in info.config.settings.iter_mut().chain(settings) {
                    if is_secret_name(setting.key.as_bytes()) {
                        self.value(&mut setting.value);
                    }
                }
                if let Saved::Journal(blob) | Saved::Snapshot(blob) = &mut info.saved {
                    self.bytes(&mut blob.bytes);
                }
            }
            Ask::Event(event) => self.event(event, bulks),
            Ask::Status | Ask::Snapshot => {}
        }
    }

    /// The same of an end.
    pub(crate) fn end(&self, end: &mut End) {
        match end {
            End::Turn(turn) => self.turn(turn),
            End::Refused(failure) => self.failure(failure),
            End::Broken(text) => self.text(text),
            End::Status(_) | End::Snapshot { .. } => {}
        }
    }

    fn event(&self, event: &mut Event, bulks: &mut Vec<Bulk>) {
        match event {
            Event::Message { payload, .. } => {
                if let Some((range, zero)) = bulk(payload)
                    && let Some(part) = payload.get_mut(range)
                {
                    bulks.push(Bulk::of(part));
                    part.fill(zero);
                }
                self.bytes(payload);
            }
            Event::HttpResponse { body, .. } => {
                if body.len() >= BODY_BULK_MIN_BYTES {
                    bulks.push(Bulk::of(body));
                    body.fill(0);
                }
            }
            Event::Custom { bytes, .. } => self.bytes(bytes),
            Event::Done {
                outcome: Outcome::Failed(failure),
                ..
            } => self.failure(failure),
            Event::Disconnected { detail, .. } => self.text(detail),
            Event::Connected(_)
            | Event::Done { .. }
            | Event::Progress { .. }
            | Event::TargetRestarted(_)
            | Event::Timeout
            | Event::Command(_)
            | Event::Allowance(_) => {}
        }
    }

    /// The same of a call.
    pub(crate) fn order(&self, order: &mut Order) {
        match order {
            Order::Publish { payload, .. } => self.bytes(payload),
            Order::HttpGet { url, .. } => self.text(url),
            Order::Log { text, .. } => self.text(text),
            Order::Emit(event) => {
                self.bytes(&mut event.document);
                if let Some(failure) = &mut event.failure {
                    self.failure(failure);
                }
            }
            Order::Subscribe { .. }
            | Order::Unsubscribe(_)
            | Order::Cancel(_)
            | Order::Create(_)
            | Order::Reopen { .. }
            | Order::WriteBlock { .. }
            | Order::Close(_)
            | Order::Verified(_)
            | Order::Install(_)
            | Order::Activate(_)
            | Order::Reset(_)
            | Order::SelfTest(_)
            | Order::Commit(_)
            | Order::Reject(_)
            | Order::State(_)
            | Order::Abort(_)
            | Order::JournalStore { .. } => {}
        }
    }

    fn turn(&self, turn: &mut Turn) {
        if let Some(wait) = &mut turn.wait {
            self.text(&mut wait.detail);
            if let Some(failure) = &mut wait.last_error {
                self.failure(failure);
            }
        }
        if let Some(failure) = &mut turn.refused {
            self.failure(failure);
        }
    }

    fn failure(&self, failure: &mut Failure) {
        self.text(&mut failure.detail);
    }

    fn text(&self, text: &mut String) {
        let mut bytes = std::mem::take(text).into_bytes();
        self.bytes(&mut bytes);
        // Only ASCII was put in place of ASCII.
        *text = String::from_utf8(bytes).unwrap_or_default();
    }

    /// All of a value.
    fn value(&self, text: &mut String) {
        let mut bytes = std::mem::take(text).into_bytes();
        self.runs(&mut bytes);
        *text = String::from_utf8(bytes).unwrap_or_default();
    }

    fn bytes(&self, bytes: &mut [u8]) {
        self.addresses(bytes);
        self.members(bytes);
    }

    /// Logins and queries of addresses.
    fn addresses(&self, bytes: &mut [u8]) {
        let mut from = 0;
        while let Some(at) = find(bytes, b"://", from) {
            let start = at + 3;
            let rest = bytes.get(start..).unwrap_or_default();
            let length = rest.iter().position(|b| ends_address(*b));
            let end = start + length.unwrap_or(rest.len());
            from = end;
            let Some(address) = bytes.get_mut(start..end) else {
                return;
            };
            let host_end = address.iter().position(|b| matches!(b, b'/' | b'?'));
            let host = address.get(..host_end.unwrap_or(address.len()));
            let login = host.and_then(|host| host.iter().rposition(|b| *b == b'@'));
            if let Some(login) = login.and_then(|login| address.get_mut(..login)) {
                self.runs(login);
            }
            let query = address.iter().position(|b| *b == b'?');
            let Some(query) = query.and_then(|query| address.get_mut(query..)) else {
                continue;
            };
            let mut at = 0;
            while let Some(equals) = find(query, b"=", at) {
                let value = query.get_mut(equals + 1..).unwrap_or_default();
                let run = value.iter().take_while(|b| is_of_value(**b)).count();
                if let Some(value) = value.get_mut(..run) {
                    self.token(value);
                }
                at = equals + 1 + run;
            }
        }
    }

    /// Values of JSON members that are called like a secret.
    fn members(&self, bytes: &mut [u8]) {
        let mut from = 0;
        while let Some(colon) = find(bytes, b"\":", from) {
            from = colon + 2;
            let name = bytes.get(..colon).unwrap_or_default();
            let begins = name.iter().rposition(|b| *b == b'"').map_or(0, |at| at + 1);
            if !is_secret_name(name.get(begins..).unwrap_or_default()) {
                continue;
            }
            let rest = bytes.get(from..).unwrap_or_default();
            let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
            if rest.get(blank) != Some(&b'"') {
                continue;
            }
            let start = from + blank + 1;
            let value = bytes.get(start..).unwrap_or_default();
            let mut escaped = false;
            let ends = |b: &u8| {
                let ends = *b == b'"' && !escaped;
                escaped = *b == b'\\' && !escaped;
                ends
            };
            let length = value.iter().position(ends);
            let end = start + length.unwrap_or(value.len());
            if let Some(value) = bytes.get_mut(start..end) {
                self.runs(value);
            }
            from = end;
        }
    }

    /// Each run of a value's characters, whatever lies between them; escapes stay escapes. What is too short for a token
    /// is no secret by itself, but a part of one is covered too.
    fn runs(&self, bytes: &mut [u8]) {
        let whole = bytes.len();
        let mut at = 0;
        while at < whole {
            let rest = bytes.get_mut(at..).unwrap_or_default();
            if let [b'\\', kind, ..] = rest {
                at += if *kind == b'u' { 6 } else { 2 };
                continue;
            }
            let run = rest.iter().take_while(|b| is_of_value(**b)).count();
            if let Some(value) = rest.get_mut(..run) {
                if run < SECRET_MIN_BYTES && whole >= SECRET_MIN_BYTES {
                    value.fill(b'z');
                } else {
                    self.token(value);
                }
            }
            at += run.max(1);
        }
    }

    /// A token of the same length in place of a secret.
    fn token(&self, value: &mut [u8]) {
        if value.len() < SECRET_MIN_BYTES || value.starts_with(MARK.as_bytes()) {
            return;
        }
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(&*value);
        let mut digest = hash.finalize();
        let mut letters = MARK.bytes().collect::<Vec<u8>>();
        while letters.len() < value.len() {
            let more = digest
                .iter()
                .map(|b| LETTERS[usize::from(*b) % LETTERS.len()]);
            letters.extend(more);
            digest = Sha256::digest(digest);
        }
        for (place, letter) in value.iter_mut().zip(letters) {
            *place = letter;
        }
    }
}

fn ends_address(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`')
}

fn is_of_value(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'.' | b'_' | b'~' | b'+' | b'/' | b'-')
}

/// Whether a name, its case and separators aside, has one of [`NAMES`] in it.
fn is_secret_name(name: &[u8]) -> bool {
    const NAME_MAX_BYTES: usize = 64;
    if name.len() > NAME_MAX_BYTES {
        return false;
    }
    let plain = name.iter().filter(|b| !matches!(b, b'_' | b'-' | b'.'));
    let plain: Vec<u8> = plain.map(u8::to_ascii_lowercase).collect();
    NAMES
        .iter()
        .any(|name| find(&plain, name.as_bytes(), 0).is_some())
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let first = what.first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|b| b == first)?;
        if bytes.get(at..)?.starts_with(what) {
            return Some(at);
        }
        at += 1;
    }
}

/// The bulk of a message, and what stands for a zero in it.
fn bulk(payload: &[u8]) -> Option<(std::ops::Range<usize>, u8)> {
    match payload.first()? {
        b'{' => text_bulk(payload).map(|range| (range, b'A')),
        // Maps of CBOR, of a length and without.
        0xa0..=0xbf => cbor_bulk(payload).map(|range| (range, 0)),
        _ => None,
    }
}

/// The longest byte string of an item of CBOR; none if it does not end where the message ends.
fn cbor_bulk(payload: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut longest: Option<std::ops::Range<usize>> = None;
    let mut at = 0;
    while let Some(head) = payload.get(at) {
        at += 1;
        let extra = match head & 0x1f {
            small @ 0..=23 => Some((u64::from(small), 0)),
            24 => Some((0, 1)),
            25 => Some((0, 2)),
            26 => Some((0, 4)),
            27 => Some((0, 8)),
            // Of no length, or the end of one such: what is in it follows.
            31 => None,
            _ => return None,
        };
        let Some((small, width)) = extra else {
            continue;
        };
        let bytes = payload.get(at..at + width)?;
        let number = bytes.iter().fold(small, |n, b| n << 8 | u64::from(*b));
        at += width;
        if matches!(head >> 5, 2 | 3) {
            let end = at.checked_add(usize::try_from(number).ok()?)?;
            payload.get(at..end)?;
            let length = longest
                .as_ref()
                .map_or(CBOR_BULK_MIN_BYTES - 1, |range| range.len());
            if head >> 5 == 2 && end - at > length {
                longest = Some(at..end);
            }
            at = end;
        }
    }
    longest
}

/// The longest text of base64, and of a block's member whatever its length, without the padding at its end.
fn text_bulk(payload: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut longest: Option<std::ops::Range<usize>> = None;
    let mut from = 0;
    while let Some(quote) = find(payload, b"\"", from) {
        let start = quote + 1;
        let rest = payload.get(start..).unwrap_or_default();
        let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        let run = rest.iter().take_while(|b| is_base64(b)).count();
        let padded = rest.get(run..).unwrap_or_default();
        let padding = padded.iter().take_while(|b| **b == b'=').count();
        let closed = padded.get(padding) == Some(&b'"') && (run + padding).is_multiple_of(4);
        // The stream service's name of a payload.
        let is_payload = payload.get(..quote).is_some_and(|before| {
            let before = before.trim_ascii_end();
            before
                .strip_suffix(b":")
                .is_some_and(|name| name.trim_ascii_end().ends_with(b"\"p\""))
        });
        let least = if is_payload { 4 } else { TEXT_BULK_MIN_BYTES };
        let length = longest.as_ref().map_or(least, |range| range.len() + 1);
        if closed && run >= length.max(least) {
            longest = Some(start..start + run);
        }
        from = start + run;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veil() -> Veil {
        Veil::new([7; 16])
    }

    fn covered(text: &str) -> String {
        let mut text = text.to_owned();
        veil().text(&mut text);
        text
    }

    #[test]
    fn a_secret_is_the_same_token_of_its_length_wherever_it_stands() {
        let url = "https://b.example/f?X-Amz-Signature=0123456789abcdef&X-Amz-Expires=300";
        let line = covered(url);
        assert_eq!(line.len(), url.len());
        assert!(
            line.starts_with("https://b.example/f?X-Amz-Signature=zq0"),
            "{line}"
        );
        assert!(line.ends_with("&X-Amz-Expires=300"), "{line}");
        let json = format!("{{\"update_data_url\":\"{url}\",\"n\":1}}");
        assert_eq!(covered(&json), json.replace(url, &line));
        assert_eq!(covered(&line), line, "once is enough");
        let other = Veil::new([8; 16]);
        let mut text = url.to_owned();
        other.text(&mut text);
        assert_ne!(text, line, "another trace, other tokens");
    }

    #[test]
    fn logins_and_members_that_are_called_like_secrets_are_replaced() {
        for (text, gone) in [
            ("mqtt://operator:hunter22@h/x", "hunter22"),
            (r#"{"Wifi_Password": "correct \"horse battery"}"#, "horse"),
            (r#"{"a":{"aws-secret-access-key":"AKIAIOSFODNN7"}}"#, "AKIA"),
        ] {
            let line = covered(text);
            assert!(!line.contains(gone), "{line}");
            assert_eq!(line.len(), text.len());
        }
        for kept in [
            r#"{"clientToken":"u1-0badc0de","sig-sha256-ecdsa":"MEQCIF0123456789"}"#,
            r#"{"status":"IN_PROGRESS","secrets":12345678}"#,
            "https://b.example/plain/path",
        ] {
            assert_eq!(covered(kept), kept);
        }
    }

    #[test]
    fn a_block_is_zeros_of_its_length_in_either_encoding() {
        let mut cbor = b"\xa4\x61f\x00\x61i\x18\x20\x61l\x19\x01\x00\x61p\x59\x01\x00".to_vec();
        let head = cbor.len();
        cbor.extend_from_slice(&[0xee; 256]);
        assert_eq!(bulk(&cbor), Some((head..head + 256, 0)));
        cbor.pop();
        assert_eq!(bulk(&cbor), None, "cut off");
        let json = br#"{"f":0,"i":3,"l":4,"p":"7u7u7g=="}"#;
        assert_eq!(bulk(json), Some((24..30, b'A')));
        let document = br#"{"execution":{"sig-sha256-ecdsa":"MEQCIF0123456789"}}"#;
        assert_eq!(bulk(document), None);
        assert_eq!(bulk(b""), None);
        assert_eq!(bulk(b"\xbf\x7f\xff\xff"), None);
        assert_eq!(bulk(b"\xa1\x5b\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
