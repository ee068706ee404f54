//! What RFC 9113 and RFC 7541 demand of a server that is sent something wrong, one rule a row (the leaves of `h2spec`
//! that are about a server's defences, in our words). Expected: the answer, the stream's reset, or the connection's end.
//!
//! Where the RFC asks for a stream error, ending the connection is right too (§5.4.2), and where it asks for a connection
//! error with a code, closing without a GOAWAY is borne (§5.4.1: it may not reach the client). Codes are not judged.

use std::time::Duration;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, Said, Server, WINDOW_UPDATE, WITH_PRIORITY, block, frame, get, indexed, kept, literal, post,
    pseudo, settings, table_size, window,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// 200.
    Served,
    /// The stream or the connection ends, or the request is answered with an error.
    Stream,
    /// The connection ends.
    Connection,
    /// A PING is answered afterwards: it was ignored.
    Ignored,
}

use Expect::{Connection, Ignored, Served, Stream};

/// A GET on stream 1 with these fields after the pseudo-header fields.
fn with(fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[pseudo("GET", "/items"), fields.to_vec()].concat())
}

/// A GET on stream 1 of these fields alone.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

fn then(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn rules() -> Vec<(&'static str, Expect, Vec<u8>)> {
    let all = pseudo("GET", "/items");
    let half = all.len() / 2;
    let reset = |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let with_length = |length: &str| {
        frame(HEADERS, END_HEADERS, 1, &[pseudo("POST", "/echo"), literal("content-length", length)].concat())
    };
    vec![
        // 4. Frames
        ("4.1 a frame of an unknown kind is ignored", Ignored, frame(0x16, 0, 0, &[0; 8])),
        ("4.1 unknown flags are ignored", Ignored, frame(PING, 0x16, 0, &[0; 8])),
        ("4.1 the reserved bit of a stream is ignored", Served, {
            let mut bytes = get(1, "/items");
            bytes[5] |= 0x80;
            bytes
        }),
        (
            "4.2 DATA over the size ends the stream",
            Stream,
            then(&[post(1, "/echo"), frame(DATA, END_STREAM, 1, &[0; 16_385])]),
        ),
        (
            "4.2 HEADERS over the size end the connection",
            Connection,
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[all.clone(), literal("a", &"b".repeat(16_385))].concat()),
        ),
        (
            "4.3 a block that cannot be decoded ends the connection",
            Connection,
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "4.3 PRIORITY within a block ends the connection",
            Connection,
            then(&[
                frame(HEADERS, 0, 1, &all),
                frame(PRIORITY, 0, 1, &[0; 5]),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ]),
        ),
        (
            "4.3 HEADERS of another stream within a block end the connection",
            Connection,
            then(&[frame(HEADERS, 0, 1, &all), get(3, "/items")]),
        ),
        (
            "4.3 a block in two parts is one",
            Served,
            then(&[frame(HEADERS, END_STREAM, 1, &all[..half]), frame(CONTINUATION, END_HEADERS, 1, &all[half..])]),
        ),
        // 5. Streams
        ("5.1 DATA of an idle stream ends the connection", Connection, frame(DATA, END_STREAM, 1, b"x")),
        ("5.1 RST_STREAM of an idle stream ends the connection", Connection, reset(1)),
        ("5.1 WINDOW_UPDATE of an idle stream ends the connection", Connection, window(1, 100)),
        (
            "5.1 CONTINUATION of an idle stream ends the connection",
            Connection,
            frame(CONTINUATION, END_HEADERS, 1, &all),
        ),
        ("5.1 DATA of a half-closed stream", Stream, then(&[get(1, "/items"), frame(DATA, END_STREAM, 1, b"x")])),
        ("5.1 HEADERS of a half-closed stream", Stream, then(&[get(1, "/items"), get(1, "/items")])),
        (
            "5.1 CONTINUATION of a half-closed stream",
            Connection,
            then(&[get(1, "/items"), frame(CONTINUATION, END_HEADERS, 1, &all)]),
        ),
        ("5.1 DATA of a reset stream", Stream, then(&[post(1, "/echo"), reset(1), frame(DATA, END_STREAM, 1, b"x")])),
        ("5.1 HEADERS of a reset stream", Stream, then(&[post(1, "/echo"), reset(1), get(1, "/items")])),
        (
            "5.1 CONTINUATION of a reset stream",
            Connection,
            then(&[post(1, "/echo"), reset(1), frame(CONTINUATION, END_HEADERS, 1, &all)]),
        ),
        (
            "5.1 PRIORITY of a reset stream is ignored",
            Ignored,
            then(&[post(1, "/echo"), reset(1), frame(PRIORITY, 0, 1, &[0; 5])]),
        ),
        ("5.1.1 a stream with an even number", Connection, get(2, "/items")),
        ("5.1.1 a stream with a lower number than before", Connection, then(&[get(5, "/items"), get(3, "/items")])),
        ("5.1.1 a request on stream 0", Connection, get(0, "/items")),
        ("5.1.2 more streams than agreed", Stream, (0..101).flat_map(|n| post(n * 2 + 1, "/echo")).collect()),
        (
            "5.3.1 HEADERS that depend on themselves",
            Stream,
            frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 255][..], &all].concat()),
        ),
        // 6. Kinds of frames
        ("6.1 DATA of stream 0", Connection, frame(DATA, END_STREAM, 0, b"x")),
        (
            "6.1 DATA with more padding than bytes",
            Connection,
            then(&[post(1, "/echo"), frame(DATA, END_STREAM | PADDED, 1, &[6, 0, 0])]),
        ),
        (
            "6.1 padded DATA is served",
            Served,
            then(&[post(1, "/echo"), frame(DATA, END_STREAM | PADDED, 1, &[2, b'x', 0, 0])]),
        ),
        (
            "6.2 HEADERS with more padding than bytes",
            Connection,
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[255, 0x82]),
        ),
        (
            "6.2 padded HEADERS are served",
            Served,
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[&[2][..], &all, &[0, 0]].concat()),
        ),
        (
            "6.2 HEADERS with a priority are served",
            Served,
            frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &[&[0, 0, 0, 0, 16][..], &all].concat()),
        ),
        ("6.3 PRIORITY of stream 0", Connection, frame(PRIORITY, 0, 0, &[0; 5])),
        ("6.3 PRIORITY of a wrong size", Stream, then(&[post(1, "/echo"), frame(PRIORITY, 0, 1, &[0; 4])])),
        ("6.4 RST_STREAM of stream 0", Connection, reset(0)),
        ("6.4 RST_STREAM of a wrong size", Connection, then(&[post(1, "/echo"), frame(RST_STREAM, 0, 1, &[0; 3])])),
        ("6.5 SETTINGS that acknowledge and say something", Connection, frame(SETTINGS, ACK, 0, &[0; 6])),
        ("6.5 SETTINGS of a stream", Connection, frame(SETTINGS, 0, 1, &[])),
        ("6.5 SETTINGS of a wrong size", Connection, frame(SETTINGS, 0, 0, &[0; 5])),
        ("6.5.2 ENABLE_PUSH of 2", Connection, settings(&[(2, 2)])),
        ("6.5.2 a window over 2^31-1", Connection, settings(&[(4, 0x8000_0000)])),
        ("6.5.2 a frame size under 2^14", Connection, settings(&[(5, 16_383)])),
        ("6.5.2 a frame size over 2^24-1", Connection, settings(&[(5, 16_777_216)])),
        ("6.5.2 unknown settings are ignored", Ignored, settings(&[(0xff, 1)])),
        (
            "6.6 PUSH_PROMISE of a client",
            Connection,
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &all].concat()),
        ),
        ("6.7 PING is answered", Ignored, Vec::new()),
        ("6.7 PING of a stream", Connection, frame(PING, 0, 1, &[0; 8])),
        ("6.7 PING of a wrong size", Connection, frame(PING, 0, 0, &[0; 6])),
        ("6.7 an acknowledgement of no PING is ignored", Ignored, frame(PING, ACK, 0, &[1; 8])),
        ("6.8 GOAWAY of a stream", Connection, frame(GOAWAY, 0, 1, &[0; 8])),
        ("6.9 WINDOW_UPDATE of 0", Connection, window(0, 0)),
        ("6.9 WINDOW_UPDATE of 0 for a stream", Stream, then(&[post(1, "/echo"), window(1, 0)])),
        ("6.9 WINDOW_UPDATE of a wrong size", Connection, frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("6.9.1 a window over 2^31-1", Connection, then(&[window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)])),
        (
            "6.9.1 a stream's window over 2^31-1",
            Stream,
            then(&[post(1, "/echo"), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)]),
        ),
        (
            "6.9.2 a setting that takes a window over 2^31-1",
            Connection,
            then(&[post(1, "/echo"), window(1, 0x7fff_0000), settings(&[(4, 0x7fff_ffff)])]),
        ),
        (
            "6.10 CONTINUATION of stream 0",
            Connection,
            then(&[frame(HEADERS, 0, 1, &all), frame(CONTINUATION, END_HEADERS, 0, &[])]),
        ),
        (
            "6.10 CONTINUATION after an end",
            Connection,
            then(&[post(1, "/echo"), frame(CONTINUATION, END_HEADERS, 1, &[])]),
        ),
        ("6.10 DATA within a block", Connection, then(&[frame(HEADERS, 0, 1, &all), frame(DATA, END_STREAM, 1, b"x")])),
        // 8. Requests
        (
            "8.1 trailers that do not end the stream",
            Stream,
            then(&[post(1, "/echo"), frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))]),
        ),
        (
            "8.1.1 a longer body than Content-Length",
            Stream,
            then(&[with_length("1"), frame(DATA, END_STREAM, 1, b"four")]),
        ),
        (
            "8.1.1 a shorter body than Content-Length",
            Stream,
            then(&[with_length("5"), frame(DATA, END_STREAM, 1, b"four")]),
        ),
        (
            "8.1.1 two shorter DATA than Content-Length",
            Stream,
            then(&[with_length("9"), frame(DATA, 0, 1, b"four"), frame(DATA, END_STREAM, 1, b"four")]),
        ),
        ("8.2.1 an upper-case name", Stream, with(&literal("X-Upper", "1"))),
        ("8.2.1 a name with a space", Stream, with(&literal("x y", "1"))),
        ("8.2.1 a name with a colon", Stream, with(&literal("x:y", "1"))),
        ("8.2.1 an empty name", Stream, with(&literal("", "1"))),
        ("8.2.1 a value with a line end", Stream, with(&literal("x", "1\r\nadmin: yes"))),
        ("8.2.1 a value with NUL", Stream, with(&literal("x", "1\0"))),
        ("8.2.2 connection", Stream, with(&literal("connection", "keep-alive"))),
        ("8.2.2 keep-alive", Stream, with(&literal("keep-alive", "1"))),
        ("8.2.2 proxy-connection", Stream, with(&literal("proxy-connection", "keep-alive"))),
        ("8.2.2 transfer-encoding", Stream, with(&literal("transfer-encoding", "chunked"))),
        ("8.2.2 upgrade", Stream, with(&literal("upgrade", "h2c"))),
        ("8.2.2 te other than trailers", Stream, with(&literal("te", "trailers, deflate"))),
        ("8.2.2 te: trailers is served", Served, with(&literal("te", "trailers"))),
        ("8.3 an unknown pseudo-header field", Stream, with(&literal(":test", "1"))),
        ("8.3 a pseudo-header field of answers", Stream, with(&literal(":status", "200"))),
        (
            "8.3 a pseudo-header field after others",
            Stream,
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block(&[("x", "1")]), all.clone()].concat()),
        ),
        (
            "8.3 a pseudo-header field in trailers",
            Stream,
            then(&[
                post(1, "/echo"),
                frame(DATA, 0, 1, b"x"),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":method", "GET")])),
            ]),
        ),
        (
            "8.3.1 an empty :path",
            Stream,
            only(&[(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "")]),
        ),
        ("8.3.1 no :method", Stream, only(&[(":scheme", "https"), (":authority", "localhost"), (":path", "/items")])),
        ("8.3.1 no :scheme", Stream, only(&[(":method", "GET"), (":authority", "localhost"), (":path", "/items")])),
        ("8.3.1 no :path", Stream, only(&[(":method", "GET"), (":scheme", "https"), (":authority", "localhost")])),
        ("8.3.1 :method twice", Stream, with(&literal(":method", "GET"))),
        ("8.3.1 :scheme twice", Stream, with(&literal(":scheme", "https"))),
        ("8.3.1 :path twice", Stream, with(&literal(":path", "/items"))),
        ("8.3.1 :authority twice", Stream, with(&literal(":authority", "localhost"))),
        (
            "8.3.1 userinfo in :authority",
            Stream,
            only(&[(":method", "GET"), (":scheme", "https"), (":authority", "a@localhost"), (":path", "/items")]),
        ),
        ("8.3.1 a host that is another one", Stream, with(&literal("host", "other.test"))),
        (
            "8.5 CONNECT with :path",
            Stream,
            only(&[(":method", "CONNECT"), (":scheme", "https"), (":authority", "localhost"), (":path", "/items")]),
        ),
        // RFC 7541
        ("HPACK 2.3.3 an index of neither table", Connection, with(&indexed(200))),
        ("HPACK 6.1 the index 0", Connection, with(&[0x80])),
        ("HPACK 6.1 a field that was kept is known again", Served, with(&[kept("x", "y"), indexed(62)].concat())),
        (
            "HPACK 6.3 a table larger than agreed",
            Connection,
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[table_size(1 << 20), all.clone()].concat()),
        ),
        ("HPACK 4.2 a change of the table's size at the end of a block", Connection, with(&table_size(0))),
        ("HPACK 5.1 an integer without end", Connection, with(&[0xff; 12])),
        ("HPACK 5.2 a string longer than the block", Connection, with(&[0, 1, b'x', 100, b'y'])),
        ("HPACK 5.2 padding of Huffman code over 7 bits", Connection, with(&[0, 1, b'x', 0x82, 0x1f, 0xff])),
        ("HPACK 5.2 padding of Huffman code with zeros", Connection, with(&[0, 1, b'x', 0x81, 0x18])),
        (
            "HPACK 5.2 the end of a string in Huffman code",
            Connection,
            with(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
    ]
}

/// Rules that are not held, each with the reason why that harms nobody.
pub const EXCEPTIONS: [(&str, &str); 1] = [(
    "8.3 a pseudo-header field in trailers",
    "the HTTP/2 library drops it with a request's other trailers, none of which is read or forwarded",
)];

/// How many held, and those that did not.
pub async fn check(server: &Server) -> (usize, Vec<String>) {
    let mut broken = Vec::new();
    let mut held = 0;
    let patience = Duration::from_secs(5);
    for (name, expect, bytes) in rules() {
        let Ok(mut connection) = server.open(&[]).await else {
            broken.push(format!("{name}: no connection"));
            continue;
        };
        let ping = if expect == Ignored { frame(PING, 0, 0, b"are you?") } else { Vec::new() };
        connection.send(&[bytes, ping].concat()).await;
        let mut seen = Vec::new();
        let fine = loop {
            let said = connection.said(patience).await;
            seen.push(said);
            match (expect, said) {
                (Connection | Stream, Said::Closed | Said::GoAway(_)) => break true,
                (Stream, Said::Reset(_)) => break true,
                (Stream, Said::Answer(first)) if first != OK => break true,
                (Served, Said::Answer(OK)) | (Ignored, Said::Other(PING)) => break true,
                // What came before the mistake may be answered.
                (Connection | Stream, Said::Answer(_))
                    if name.contains("half-closed") || name.contains("lower number") => {}
                (_, Said::Answer(_) | Said::Closed | Said::GoAway(_) | Said::Reset(_) | Said::Silent) => break false,
                (_, Said::Other(_)) => {}
            }
        };
        if fine {
            held += 1;
        } else if EXCEPTIONS.iter().all(|(exception, _)| *exception != name) {
            broken.push(format!("{name}: {seen:?}"));
        }
    }
    // 3.4: the preface.
    if let Ok(mut connection) = server.connect(std::net::Ipv4Addr::LOCALHOST).await {
        let wrong: Vec<u8> = PREFACE.iter().map(u8::to_ascii_lowercase).collect();
        connection.send(&wrong).await;
        loop {
            match connection.said(patience).await {
                Said::Closed | Said::GoAway(_) => break held += 1,
                Said::Silent => break broken.push("3.4 a preface that is none: not ended".to_owned()),
                _ => {}
            }
        }
    }
    (held, broken)
}

/// `:status: 200` of the static table.
const OK: u8 = 0x88;
