//! The border between `ivc`, at whose CID 2 guests reach the management service, and the supervisor, which is it.
//!
//! One pair of byte rings (`partita_ring::Duplex`), lines in both. `ivc` keeps the streams apart, the supervisor decides.
//! A line to the supervisor is `<cell> <session> <request>`, one from it `<session> <answer>`: cell and session are decimal
//! numbers, request and answer one JSON object each without a newline inside. A session is a number that `ivc` gives to a
//! stream and never again. Requests of one session are answered in order, each with exactly one line. `+<session> <line>` is
//! one that nobody asked for (a message): `ivc` hands it to the stream if it is still open and has room, else it is dropped.

/// Bytes of each direction's region: one header page and 16 KiB of data.
pub const RING: usize = 0x5000;
/// Longest request, without its numbers and its newline. A longer one is answered with an error by `ivc` itself.
pub const REQUEST_MAX: usize = 512;
/// Longest answer.
pub const ANSWER_MAX: usize = 4096;
/// Sessions that can be open at a time.
pub const SESSIONS: usize = 8;

/// Ports of CID 2.
pub mod port {
    /// Management: a JSON object a line, for cells with `manager`.
    pub const MANAGE: u32 = 1;
    /// Keep-alive and broadcast messages, for every cell with a CID.
    pub const MESSAGES: u32 = 2;
    /// Sends back what comes (RFC 862).
    pub const ECHO: u32 = 7;
    /// Takes what comes (RFC 863).
    pub const DISCARD: u32 = 9;
    /// Sends without end (RFC 864).
    pub const CHARGEN: u32 = 19;
    /// Lines for the log.
    pub const LOG: u32 = 514;
}
