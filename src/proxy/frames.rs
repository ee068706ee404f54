//! HTTP/2 frames of a client, as far as a connection's patience with them is concerned.
//!
//! What frames mean is the HTTP/2 library's. It bounds what it keeps, header lists, streams and empty DATA frames; it
//! does not bound how often a client may open a stream and reset it (CVE-2023-44487), ping, change settings or send
//! frames that nobody knows, nor how long a header block may take. This looks at frame heads alone (RFC 9113 §4.1),
//! beside the bytes that pass, and keeps none of them.

use std::time::Duration;

use tokio::time::Instant;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The length of the client's preface and of a frame's head.
const PREFACE: usize = 24;
const HEAD: usize = 9;

/// Streams that a client resets: so many at once, and so many a second. Browsers reset what a page does not need any
/// more; nghttp2 has the same figures.
const RESETS: Budget = Budget::new(1_000, 33);
/// Other frames that ask for nothing (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, unknown ones).
const IDLE: Budget = Budget::new(10_000, 330);
/// So many bytes of answers allow one more of them: a client acknowledges what it reads, gRPC's also with a PING for
/// each small message. An acknowledged PING or SETTINGS is much shorter, so that none of them pays for the next.
const ACKNOWLEDGED: usize = 64;

/// Where a connection stands.
#[derive(Debug)]
pub(super) struct Frames {
    /// What is received.
    part: Part,
    /// A request's head has come.
    opened: bool,
    /// A header block is open: CONTINUATION follows.
    block: bool,
    /// Since when a head is received: from the accept to the first one, then from a frame that begins one.
    head: Option<Instant>,
    deadline: Duration,
    resets: Budget,
    idle: Budget,
    answered: usize,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    /// Bytes of the preface that are missing.
    Preface(usize),
    /// A frame's head, and how much of it came.
    Head([u8; HEAD], usize),
    /// Bytes of a payload that are missing.
    Payload(usize),
}

const START: Part = Part::Head([0; HEAD], 0);

impl Frames {
    /// A connection that was accepted then. A request's head may take `deadline`.
    pub(super) fn new(accepted: Instant, deadline: Duration) -> Self {
        Self {
            part: Part::Preface(PREFACE),
            opened: false,
            block: false,
            head: Some(accepted),
            deadline,
            resets: RESETS,
            idle: IDLE,
            answered: 0,
        }
    }

    /// Looks at what was received. Whether it is more than a client that wants something sends.
    pub(super) fn are_too_many(&mut self, mut received: &[u8]) -> bool {
        while !received.is_empty() {
            let used = match &mut self.part {
                Part::Preface(missing) | Part::Payload(missing) => {
                    let used = received.len().min(*missing);
                    *missing = missing.saturating_sub(used);
                    if *missing == 0 {
                        self.end();
                    }
                    used
                }
                Part::Head(head, came) => {
                    let used = received.len().min(HEAD.saturating_sub(*came));
                    for (at, byte) in head.iter_mut().skip(*came).zip(received) {
                        *at = *byte;
                    }
                    *came = came.saturating_add(used);
                    if *came == HEAD {
                        let head = *head;
                        if self.begin(head) {
                            return true;
                        }
                    } else if self.head.is_none() {
                        self.head = Some(Instant::now());
                    }
                    used
                }
            };
            received = received.get(used..).unwrap_or_default();
        }
        false
    }

    /// A frame begins. Whether it is one too many.
    fn begin(&mut self, head: [u8; HEAD]) -> bool {
        let [high, middle, low, kind, flags, ..] = head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind == HEADERS || kind == CONTINUATION {
            self.block = flags & END_HEADERS == 0;
            self.opened |= !self.block;
        }
        self.part = Part::Payload(length);
        let spent = match kind {
            DATA if length > 0 || flags & END_STREAM != 0 => false,
            HEADERS => false,
            RST_STREAM => !self.resets.spend(),
            _ => !self.idle.spend(),
        };
        if length == 0 {
            self.end();
        } else if kind != DATA && self.head.is_none() {
            self.head = Some(Instant::now());
        } else if kind == DATA && self.opened && !self.block {
            self.head = None;
        }
        spent
    }

    /// A frame ends.
    fn end(&mut self) {
        self.part = START;
        if self.opened && !self.block {
            self.head = None;
        }
    }

    /// Bytes that were sent to the client.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.answered = self.answered.saturating_add(bytes);
        let more = self.answered.checked_div(ACKNOWLEDGED).unwrap_or(0);
        if more > 0 {
            self.answered = self.answered.checked_rem(ACKNOWLEDGED).unwrap_or(0);
            self.idle.add(more);
        }
    }

    /// Until when more must come.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.head.map(|since| since + self.deadline)
    }
}

/// So many at once, and so many more each second.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: usize,
    most: usize,
    each_second: u64,
    filled: Option<Instant>,
}

impl Budget {
    const fn new(most: usize, each_second: u64) -> Self {
        Self { left: most, most, each_second, filled: None }
    }

    /// Whether there was one left.
    fn spend(&mut self) -> bool {
        if self.left == 0 || self.filled.is_none() {
            let now = Instant::now();
            let elapsed = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
            let more = elapsed.as_millis().saturating_mul(self.each_second.into()) / 1000;
            if more > 0 || self.filled.is_none() {
                self.filled = Some(now);
                self.add(usize::try_from(more).unwrap_or(usize::MAX));
            }
        }
        let had = self.left > 0;
        self.left = self.left.saturating_sub(1);
        had
    }

    fn add(&mut self, more: usize) {
        self.left = self.left.saturating_add(more).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    fn open() -> Frames {
        let mut frames = Frames::new(Instant::now(), Duration::from_secs(10));
        assert!(!frames.are_too_many(&[0; PREFACE]));
        assert!(!frames.are_too_many(&frame(4, 0, &[])));
        assert!(frames.deadline().is_some(), "no request came yet");
        frames
    }

    /// How many of these frames a connection has patience for.
    fn borne(bytes: &[u8]) -> usize {
        let mut frames = open();
        (0..100_000).take_while(|_| !frames.are_too_many(bytes)).count()
    }

    #[test]
    fn frames_that_ask_for_nothing_have_a_budget_and_those_that_carry_something_have_none() {
        let request = [frame(HEADERS, END_HEADERS, &[1; 20]), frame(DATA, 0, &[1])].concat();
        assert_eq!(borne(&request), 100_000);
        let reset = [frame(HEADERS, END_HEADERS, &[1; 20]), frame(RST_STREAM, 0, &[0; 4])].concat();
        assert!((1_000..1_100).contains(&borne(&reset)), "{}", borne(&reset));
        for (kind, payload) in [(6, 8), (4, 0), (8, 4), (2, 5), (0, 0), (0xfa, 3), (CONTINUATION, 0)] {
            let borne = borne(&frame(kind, 0, &vec![0; payload]));
            assert!((9_000..11_000).contains(&borne), "{kind}: {borne}");
        }
    }

    #[test]
    fn acknowledging_what_was_answered_costs_nothing() {
        let mut frames = open();
        for _ in 0..100_000 {
            frames.answered(16 * 1024);
            assert!(!frames.are_too_many(&frame(8, 0, &[0, 0, 64, 0])));
        }
        // A stream of small messages, each acknowledged with a WINDOW_UPDATE and a PING.
        for _ in 0..100_000 {
            frames.answered(9 + 128);
            assert!(!frames.are_too_many(&frame(8, 0, &[0, 0, 0, 128])));
            assert!(!frames.are_too_many(&frame(6, 0, &[0; 8])));
        }
        let mut pinging = open();
        let borne = (0..100_000).take_while(|_| {
            pinging.answered(9 + 8);
            !pinging.are_too_many(&frame(6, 0, &[0; 8]))
        });
        assert!(borne.count() < 20_000, "an answered PING pays for the next one");
    }

    #[test]
    fn a_header_block_has_a_deadline_until_it_is_complete_in_whatever_pieces_it_comes() {
        for size in 1..30 {
            let mut frames = open();
            let block = [frame(HEADERS, 0, &[1; 20]), frame(CONTINUATION, 0, &[2; 3])].concat();
            for piece in block.chunks(size) {
                assert!(!frames.are_too_many(piece));
                assert!(frames.deadline().is_some());
            }
            assert!(!frames.are_too_many(&frame(CONTINUATION, END_HEADERS, &[])));
            assert_eq!(frames.deadline(), None);
            for byte in frame(HEADERS, END_HEADERS, &[1; 5]) {
                assert_eq!(frames.deadline().is_some(), !matches!(frames.part, Part::Head(_, 0)));
                assert!(!frames.are_too_many(&[byte]));
            }
            assert_eq!(frames.deadline(), None);
            let data = frame(DATA, 0, &[7; 100]);
            assert!(!frames.are_too_many(&data[..50]));
            assert_eq!(frames.deadline(), None, "a body has its own time");
        }
    }
}
