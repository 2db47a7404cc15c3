//! What does not leave the gateway in a trace: images, and secrets.
//!
//! Both keep their length, so that an agent that is given the trace does the same with it. The bulk of a block message or
//! of a range becomes zeros (in base64 `A`, which decodes to zeros). A secret becomes a token: the same secret the same
//! token wherever it stands in one trace, on the way in and out. Secrets are the values in the query of an address (what
//! signs a pre-signed one), a login in an address, and settings and JSON members that are called like one, with all that
//! is in them. The rules look at bytes and know no protocol; what a custom job calls otherwise stays as it is, and so does
//! what is public: digests, signatures of images, client tokens.

use sha2::{Digest as _, Sha256};

use super::tap::{Answer, Ask, Bulk, End, Exchange, Order};
use super::{Command, CustomAnswer, Event, Message, OfferAnswer, Saved, Turn};
use crate::types::{Failure, Outcome, Started};

/// What a token begins with; a value that does is left alone.
pub(crate) const MARK: &str = "zq0";

/// Values in a query that are shorter than this are no secrets: numbers, flags. A shorter part of a secret has no token of
/// its own, only its length.
const SECRET_MIN_BYTES: usize = 6;

/// A part of a query without a name is a secret from this length on: `acl` and `versioning` are none.
const NAMELESS_MIN_BYTES: usize = 16;

/// Byte strings in CBOR from this length on are bulk: a block has at least 256 bytes.
const CBOR_BULK_MIN_BYTES: usize = 128;

/// Base64 in JSON from this length on is bulk, whatever it is called: a signature of RSA-4096 has 684.
const TEXT_BULK_MIN_BYTES: usize = 1024;

/// Parts of names of JSON members and settings whose values are secrets.
const NAMES: [&str; 19] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "psk",
    "secret",
    "credential",
    "privatekey",
    "accesskey",
    "apikey",
    "authorization",
    "connectionstring",
    "accesstoken",
    "apitoken",
    "authtoken",
    "bearer",
    "refreshtoken",
    "sessiontoken",
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
                    self.named(&setting.key, &mut setting.value);
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
            Event::Messages(messages) => {
                for Message { payload, .. } in messages {
                    if let Some((range, zero)) = bulk(payload)
                        && let Some(part) = payload.get_mut(range)
                    {
                        bulks.push(Bulk::of(part));
                        part.fill(zero);
                    }
                    self.bytes(payload);
                }
            }
            Event::HttpResponse { body, .. } => {
                if !body.is_empty() {
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
            Event::Command(command) => self.command(command),
            Event::Connected(_)
            | Event::Done { .. }
            | Event::Progress { .. }
            | Event::TargetRestarted(_)
            | Event::Timeout
            | Event::Allowance(_) => {}
        }
    }

    fn command(&self, command: &mut Command) {
        match command {
            Command::TestResult {
                failure: Some(failure),
                ..
            } => self.failure(failure),
            Command::AnswerOffer {
                answer: OfferAnswer::Reject(reason),
                ..
            } => self.text(reason),
            Command::AnswerCustomJob {
                answer: CustomAnswer::Document(document),
                ..
            } => self.bytes(document),
            Command::AnswerCustomJob {
                answer: CustomAnswer::Finished(result),
                ..
            } => {
                for (name, value) in &mut result.details {
                    self.named(name, value);
                }
            }
            Command::CheckForUpdate
            | Command::Suspend
            | Command::Resume
            | Command::Activate(_)
            | Command::TestResult { .. }
            | Command::UserAbort
            | Command::AnswerOffer { .. }
            | Command::AnswerCustomJob { .. }
            | Command::Shutdown { .. } => {}
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

    /// A value, all of it if its name is that of a secret.
    fn named(&self, name: &str, text: &mut String) {
        if !is_secret_name(name.as_bytes()) {
            return self.text(text);
        }
        let mut bytes = std::mem::take(text).into_bytes();
        self.conceal(&mut bytes);
        *text = String::from_utf8(bytes).unwrap_or_default();
    }

    fn bytes(&self, bytes: &mut [u8]) {
        self.addresses(bytes);
        self.members(bytes);
    }

    /// Logins and queries of addresses.
    fn addresses(&self, bytes: &mut [u8]) {
        let mut from = 0;
        while let Some(start) = find_address(bytes, from) {
            let rest = bytes.get(start..).unwrap_or_default();
            let length = rest.iter().position(|b| ends_address(*b));
            let end = start + length.unwrap_or(rest.len());
            from = end;
            let Some(address) = bytes.get_mut(start..end) else {
                return;
            };
            let host_end = address
                .iter()
                .position(|b| matches!(b, b'/' | b'?' | b'\\'));
            let host = address.get(..host_end.unwrap_or(address.len()));
            let login = host.and_then(|host| host.iter().rposition(|b| *b == b'@'));
            if let Some(login) = login.and_then(|login| address.get_mut(..login)) {
                self.conceal(login);
            }
            let query = address.iter().position(|b| *b == b'?');
            let query = query.and_then(|query| address.get_mut(query + 1..));
            // JSON may write the separator as `\u0026`.
            let parts = query.unwrap_or_default();
            for part in parts.split_mut(|b| matches!(b, b'&' | b'\\' | b'#')) {
                match part.iter().position(|b| *b == b'=') {
                    Some(equals) => self.token(part.get_mut(equals + 1..).unwrap_or_default()),
                    None if part.len() >= NAMELESS_MIN_BYTES => self.token(part),
                    None => {}
                }
            }
        }
    }

    /// Values of JSON members that are called like a secret, whatever lies in them.
    fn members(&self, bytes: &mut [u8]) {
        let mut from = 0;
        while let Some(colon) = find(bytes, b"\":", from) {
            from = colon + 2;
            let name = bytes.get(..colon).unwrap_or_default();
            let begins = name.iter().rposition(|b| *b == b'"').map_or(0, |at| at + 1);
            if is_secret_name(name.get(begins..).unwrap_or_default()) {
                from = self.member(bytes, from);
            }
        }
    }

    /// One value of JSON that begins here, blanks before it; where it ends.
    fn member(&self, bytes: &mut [u8], from: usize) -> usize {
        let mut depth = 0_usize;
        let mut at = from;
        while let Some(first) = bytes.get(at).copied() {
            let rest = bytes.get_mut(at..).unwrap_or_default();
            let mut length = 1;
            match first {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    at += 1;
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' if depth > 0 => depth -= 1,
                b'"' => {
                    let inside = string_bytes(rest);
                    let after = rest.get(inside + 2..).unwrap_or_default();
                    let is_name = depth > 0 && after.trim_ascii_start().starts_with(b":");
                    if let Some(value) = rest.get_mut(1..=inside).filter(|_| !is_name) {
                        self.conceal(value);
                    }
                    length = inside + 2;
                }
                b'0'..=b'9' => {
                    length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                    if let Some(number) = rest.get_mut(..length)
                        && length >= SECRET_MIN_BYTES
                    {
                        // A number stays one.
                        number.fill(b'1');
                    }
                }
                _ if depth == 0 => return at,
                _ => {}
            }
            at += length;
            if depth == 0 {
                return at;
            }
        }
        at
    }

    /// All of a secret, part by part: what lies between blanks, colons and escapes. What is too short for a token becomes
    /// as many `z`; escapes stay escapes, those that spell a character spell a `z`.
    fn conceal(&self, bytes: &mut [u8]) {
        const SPELLED: &[u8] = b"\\u007a";
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            if let Some(spelled) = rest.get_mut(..SPELLED.len())
                && spelled.starts_with(b"\\u")
            {
                spelled.copy_from_slice(SPELLED);
                at += SPELLED.len();
                continue;
            }
            if rest.first() == Some(&b'\\') {
                at += 2;
                continue;
            }
            let ends = |b: &u8| matches!(b, b'\\' | b':') || b.is_ascii_whitespace();
            let run = rest.iter().position(ends).unwrap_or(rest.len());
            if let Some(part) = rest.get_mut(..run) {
                match run < SECRET_MIN_BYTES {
                    true => part.fill(b'z'),
                    false => self.token(part),
                }
            }
            at += run.max(1);
        }
    }

    /// A token of the same length in place of a secret.
    fn token(&self, value: &mut [u8]) {
        if value.len() < SECRET_MIN_BYTES || is_token(value) {
            return;
        }
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

/// Where the host of the next address begins; JSON may write its slashes with escapes.
fn find_address(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at = find(bytes, b":", at)? + 1;
        let rest = bytes.get(at..)?;
        for slashes in [&b"//"[..], b"\\/\\/"] {
            if rest.starts_with(slashes) {
                return Some(at + slashes.len());
            }
        }
    }
}

/// Bytes of a string of JSON that begins here with its quote, without quotes; of one that does not end, all.
fn string_bytes(json: &[u8]) -> usize {
    let mut escaped = false;
    let inside = json.get(1..).unwrap_or_default();
    let ends = |b: &u8| {
        let ends = *b == b'"' && !escaped;
        escaped = *b == b'\\' && !escaped;
        ends
    };
    inside.iter().position(ends).unwrap_or(inside.len())
}

/// What tokens are written with.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Whether this was put in place of a secret already.
fn is_token(value: &[u8]) -> bool {
    let letters = value.strip_prefix(MARK.as_bytes());
    letters.is_some_and(|letters| letters.iter().all(|b| LETTERS.contains(b)))
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
        at += position(bytes.get(at..)?, *first)?;
        if bytes.get(at..)?.starts_with(what) {
            return Some(at);
        }
        at += 1;
    }
}

/// Where a byte is first. By pieces: whether one has it at all is asked of all its bytes at once, and in a block of an image
/// there is none.
fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    const PIECE_BYTES: usize = 64;
    let (pieces, _) = bytes.as_chunks::<PIECE_BYTES>();
    let has = |piece: &[u8; PIECE_BYTES]| piece.iter().fold(false, |has, b| has | (*b == byte));
    let free = pieces.iter().take_while(|piece| !has(piece)).count();
    let start = free * PIECE_BYTES;
    let at = bytes.get(start..)?.iter().position(|b| *b == byte)?;
    Some(start + at)
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
    use super::super::tests::{header, start_info};
    use super::super::trace::{Trace, Writer};
    use super::*;
    use crate::agent::{Context, JobResult};

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
            (r##"{"password":"p@ss!w0rd#"}"##, "w0rd"),
            (r##"{"password":"p@ss!w0rd#"}"##, "@"),
            (r#"{"passwd":"abc12"}"#, "abc12"),
            ("{\"password\":\"пароль от насоса\"}", "насоса"),
            (r#"{"password":"\u0068unter22"}"#, "\\u0068"),
            (r#"{"pwd":12345678,"n":1}"#, "12345678"),
            (r#"{"passwords":["hunter22", "hunter23"]}"#, "hunter"),
            (
                r#"{"credentials":{"user":"ann","n":{"key":"AKIAIOSF"}}}"#,
                "AKIA",
            ),
            (r#"{"wifi_psk":"hunter22"}"#, "hunter22"),
            ("mqtt://o:p!ss~22@h/x", "p!ss"),
            (
                r#"{"u":"https:\/\/b.example\/f?X-Amz-Signature=0badc0de0badc0de"}"#,
                "0badc0de",
            ),
            (r#"{"u":"https:\/\/ann:hunter22@b.example\/f"}"#, "hunter22"),
            (
                r#"{"u":"https://b.example/f?a=1\u0026sig=0badc0de"}"#,
                "0badc0de",
            ),
            ("https://b.example/f?sig=ab,0badc0de==&n=1", "0badc0de"),
            ("https://b.example/f?0badc0de0badc0de", "0badc0de"),
        ] {
            let line = covered(text);
            assert!(!line.contains(gone), "{line}");
            assert_eq!(line.len(), text.len());
        }
        for kept in [
            r#"{"clientToken":"u1-0badc0de","sig-sha256-ecdsa":"MEQCIF0123456789"}"#,
            r#"{"status":"IN_PROGRESS","secrets":12345,"size":1234567}"#,
            r#"{"passwords":[],"url":"https://b.example/f?acl","keep":"hunter22"}"#,
            r#"{"secret":null,"keep":["hunter22"]}"#,
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

    #[test]
    fn each_of_the_messages_of_one_event_loses_its_block_and_its_secrets() {
        let mut cbor = b"\xa2\x61i\x00\x61p\x59\x01\x00".to_vec();
        cbor.extend_from_slice(&[0xee; 256]);
        let json = br#"{"f":0,"i":3,"l":4,"p":"7u7u7g=="}"#;
        let login = br#"{"password":"hunter22"}"#;
        let payloads = [&cbor[..], login, json, &cbor];
        let message = |payload: &&[u8]| Message {
            topic: "t".to_owned(),
            payload: payload.to_vec(),
        };
        let mut exchange = Exchange {
            at: Context::default(),
            ask: Ask::Event(Event::Messages(payloads.iter().map(message).collect())),
            calls: Vec::new(),
            end: End::Turn(Box::default()),
        };
        // In their order; what has none stands for nothing.
        let block = Bulk::of(&[0xee; 256]);
        let bulks = veil().cover(&mut exchange);
        assert_eq!(bulks, [block, Bulk::of(b"7u7u7g"), block]);
        let Ask::Event(Event::Messages(covered)) = &exchange.ask else {
            panic!("{:?}", exchange.ask);
        };
        for (message, payload) in covered.iter().zip(payloads) {
            let text = String::from_utf8_lossy(&message.payload);
            assert_eq!(message.payload.len(), payload.len());
            assert!(!message.payload.contains(&0xee), "{text}");
            assert!(
                !text.contains("hunter22") && !text.contains("7u7u"),
                "{text}"
            );
        }
        assert_eq!(covered[2].payload, br#"{"f":0,"i":3,"l":4,"p":"AAAAAA=="}"#);
        // The line of a trace holds all of it, and who reads it has the same messages.
        let mut writer = Writer::default();
        let mut trace = writer.header(&header());
        let start = Exchange {
            ask: Ask::Start(Box::new(start_info())),
            ..exchange.clone()
        };
        assert!(writer.line(start, Vec::new(), &mut trace));
        assert!(writer.line(exchange.clone(), bulks, &mut trace));
        let text = String::from_utf8(trace.clone()).unwrap();
        assert_eq!(text.matches("\"length\":256").count(), 2, "{text}");
        assert_eq!(text.matches("\"length\":6,").count(), 1, "{text}");
        let mut trace = Trace::open(&trace).unwrap();
        trace.next_exchange().unwrap().unwrap();
        assert_eq!(trace.next_exchange().unwrap(), Some(exchange));
    }

    #[test]
    fn nothing_is_left_in_clear_of_settings_commands_and_short_bodies() {
        let mut address = "https://ann:hunter22@h/x?sig=0badc0de".to_owned();
        veil().named("report_to", &mut address);
        assert!(!address.contains("hunter22") && !address.contains("0badc0de"));
        let mut command = Command::AnswerCustomJob {
            job_id: "job".to_owned(),
            answer: CustomAnswer::Finished(JobResult {
                status: 2,
                details: vec![("new-password".to_owned(), "hunter22".to_owned())],
            }),
        };
        veil().command(&mut command);
        assert!(!format!("{command:?}").contains("hunter22"), "{command:?}");
        let mut event = Event::HttpResponse {
            token: 1,
            status: 403,
            total: None,
            body: b"<AWSAccessKeyId>AKIAIOSFODNN7</AWSAccessKeyId>".to_vec(),
        };
        let mut bulks = Vec::new();
        veil().event(&mut event, &mut bulks);
        assert_eq!(bulks.len(), 1);
        assert!(matches!(event, Event::HttpResponse { body, .. } if body.iter().all(|b| *b == 0)));
    }
}
