//! HTTP/1.1 range responses as a proxy sees them: enough of HTTP to end some of them in the middle of the body.
//!
//! Only answers with a `Content-Length` are followed, which is what range servers send; behind any other body nothing
//! is judged any more on that connection. It checks nothing that a client checks.

use super::loss::Loss;

/// Longest head that is collected, 64 KiB: more than any client here accepts.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Follows the answers on one connection.
pub(super) struct Cutter<'a> {
    loss: &'a Loss,
    state: State,
}

enum State {
    /// The head so far.
    Head(Vec<u8>),
    /// Bytes of the body to come, and how many of them still go on if it is to be cut.
    Body { left: u64, cut_in: Option<u64> },
    /// What comes cannot be told apart.
    Lost,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(loss: &'a Loss) -> Self {
        Self {
            loss,
            state: State::Head(Vec::new()),
        }
    }

    /// How many of these bytes go on before the connection ends; none = all of them, and it goes on.
    pub(super) fn handle(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Lost => return None,
                State::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(rest);
                    let from = before.saturating_sub(3);
                    let Some(end) = find(&head[from..], b"\r\n\r\n") else {
                        if head.len() > HEAD_BYTES_MAX {
                            self.state = State::Lost;
                        }
                        return None;
                    };
                    let end = from + end + 4;
                    let next = self.loss_of(end);
                    self.state = next;
                    at += end - before;
                }
                State::Body { left, cut_in } => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if let Some(go_on) = cut_in {
                        if *go_on <= taken as u64 {
                            return Some(at + *go_on as usize);
                        }
                        *go_on -= taken as u64;
                    }
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.state = State::Head(Vec::new());
                    }
                }
            }
        }
        None
    }

    /// What follows the head that ends there.
    fn loss_of(&self, end: usize) -> State {
        let State::Head(head) = &self.state else {
            return State::Lost;
        };
        let Some((is_range, left)) = parsed(&head[..end]) else {
            return State::Lost;
        };
        if left == 0 {
            return State::Head(Vec::new());
        }
        let drawn = if is_range { self.loss.judge() } else { None };
        State::Body {
            left,
            cut_in: drawn.map(|drawn| drawn % left),
        }
    }
}

/// Whether a head is that of a 206, and the length of its body.
fn parsed(head: &[u8]) -> Option<(bool, u64)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })?;
    Some((status == "206", length))
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    const RANGE: &[u8] = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 10\r\n\r\n0123456789";

    /// What goes on of a stream that comes in pieces of this size.
    fn passed(per_mille: u64, stream: &[u8], step: usize) -> usize {
        let loss = Loss::new(per_mille, 5);
        let mut cutter = Cutter::new(&loss);
        let mut total = 0;
        for piece in stream.chunks(step) {
            match cutter.handle(piece) {
                Some(count) => return total + count,
                None => total += piece.len(),
            }
        }
        total
    }

    #[test]
    fn a_cut_is_in_the_body_of_a_range_response_however_the_stream_comes() {
        let stream = [OTHER, RANGE, OTHER].concat();
        let body = OTHER.len() + RANGE.len() - 10;
        let whole = passed(1000, &stream, stream.len());
        assert!((body..body + 10).contains(&whole), "{whole}");
        for step in 1..stream.len() {
            assert_eq!(passed(1000, &stream, step), whole, "pieces of {step}");
            assert_eq!(passed(0, &stream, step), stream.len());
        }
    }

    #[test]
    fn what_cannot_be_told_apart_goes_on() {
        let chunked = b"HTTP/1.1 206 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        let noise = [0xffu8; 100 * 1024];
        for stream in [&chunked[..], &noise[..], RANGE.split_at(30).0] {
            assert_eq!(passed(1000, stream, 1000), stream.len());
        }
    }
}
