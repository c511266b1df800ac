//! What CID 2 serves: the broker's own end of a connection.
//!
//! A stream has two buffers. What the guest sends is kept until it can be used, and only what has been used is told as
//! consumed: the guest's credit is the room in the buffer, so nothing can overflow. What goes to the guest is kept until it
//! has buffers and credit. A stream that does not move keeps its own memory and nothing else.

use heapless::{Deque, Vec};
use partita_protocol::ivc_stats::Counter;
use partita_protocol::manage::{REQUEST_MAX, SESSIONS, port};
use partita_virtio::memory::MemoryError;
use partita_virtio::queue::Fault;
use partita_virtio::vsock::{Header, kind, op, shutdown};

use super::packets::{Step, room};
use super::table::HOST;
use super::{Broker, PACKET, Presence, Refusal, Report};

/// Streams at CID 2.
pub const STREAMS: usize = 24;
/// Streams of one cell, if there are few cells.
const PER_CELL: usize = 8;
/// Bytes that are kept from the guest: a request and more, or a line of the log.
pub const INPUT: usize = 1024;
/// Bytes that are kept for the guest.
pub const OUTPUT: usize = 5120;
/// What DISCARD and CHARGEN tell as their room.
const ENDLESS: u32 = 64 << 10;
/// Bytes of one packet that are made or copied out of a buffer.
const PIECE: usize = 512;

/// What a stream is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Lines to the supervisor and back: management, or messages.
    Lines,
    /// RFC 862.
    Echo,
    /// RFC 863.
    Discard,
    /// RFC 864.
    Chargen,
    /// Lines for the log.
    Log,
}

impl Service {
    const fn at(number: u32) -> Option<Self> {
        match number {
            port::MANAGE | port::MESSAGES => Some(Service::Lines),
            port::ECHO => Some(Service::Echo),
            port::DISCARD => Some(Service::Discard),
            port::CHARGEN => Some(Service::Chargen),
            port::LOG => Some(Service::Log),
            _ => None,
        }
    }

    const fn room(self) -> u32 {
        match self {
            Service::Lines | Service::Log => INPUT as u32,
            Service::Echo => OUTPUT as u32,
            Service::Discard | Service::Chargen => ENDLESS,
        }
    }
}

/// A stream.
pub struct Stream {
    #[expect(dead_code, reason = "see there")]
    presence: Presence,
    pub cell: usize,
    pub service: Service,
    /// Its connection.
    index: usize,
    pub input: Vec<u8, INPUT>,
    pub output: Deque<u8, OUTPUT>,
    /// Bytes used of what came.
    pub consumed: u32,
    /// `consumed` as the guest was last told.
    told: u32,
    /// RESPONSE is to be sent.
    response: bool,
    /// The guest asked for our credit.
    credit: bool,
    /// The guest sends no more.
    ended: bool,
    /// We have said that we send no more.
    shut: bool,
    /// Number towards the supervisor.
    pub session: u32,
    /// A request is with the supervisor.
    pub asked: bool,
    /// The rest of a line that is too long is being skipped.
    pub skipping: bool,
    /// Bytes made by CHARGEN, modulo [`PERIOD`].
    made: u32,
}

/// All of them.
pub struct Streams {
    pub list: [Option<Stream>; STREAMS],
    /// Sessions so far.
    sessions: u32,
    /// Streams that a cell may have: see [`Streams::share`].
    per_cell: usize,
    /// Of these, sessions with the supervisor.
    lines_per_cell: usize,
}

impl Streams {
    pub const fn new() -> Self {
        Self { list: [const { None }; STREAMS], sessions: 0, per_cell: 0, lines_per_cell: 0 }
    }

    /// Divides them among this many cells.
    pub fn share(&mut self, cells: usize) {
        self.per_cell = PER_CELL.min(STREAMS / cells.max(1));
        self.lines_per_cell = (SESSIONS / cells.max(1)).max(1);
    }

    pub fn close(&mut self, stream: usize) {
        if let Some(place) = self.list.get_mut(stream) {
            *place = None;
        }
    }

    pub fn get(&mut self, stream: usize) -> Option<&mut Stream> {
        self.list.get_mut(stream)?.as_mut()
    }

    /// A place for one more stream of a cell.
    fn place(&self, cell: usize, service: Service) -> Option<usize> {
        if service == Service::Lines {
            let lines = || self.list.iter().flatten().filter(|stream| stream.service == Service::Lines);
            let of_cell = lines().filter(|stream| stream.cell == cell).count();
            if lines().count() >= SESSIONS || of_cell >= self.lines_per_cell {
                return None;
            }
        }
        let of_cell = self.list.iter().flatten().filter(|stream| stream.cell == cell).count();
        if of_cell >= self.per_cell {
            return None;
        }
        self.list.iter().position(Option::is_none)
    }
}

impl Stream {
    /// What was used of the input leaves it.
    pub fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.input.len());
        self.input.rotate_left(bytes);
        self.input.truncate(self.input.len() - bytes);
        self.consumed = self.consumed.wrapping_add(bytes as u32);
    }

    /// Room for output.
    pub fn free(&self) -> usize {
        OUTPUT - self.output.len()
    }

    /// Puts bytes that fit into the output.
    pub fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let _ = self.output.push_back(*byte);
        }
    }

    /// The guest sends no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Nothing that came waits, nothing is being answered, nothing is left to be sent.
    fn is_quiet(&self) -> bool {
        self.input.is_empty() && !self.asked && self.output.is_empty()
    }
}

/// Characters of a line of CHARGEN; CR and LF come behind them.
const CHARACTERS: usize = 72;
/// Printable characters.
const PRINTABLE: usize = 95;
/// Bytes until it all comes again.
const PERIOD: u32 = ((CHARACTERS + 2) * PRINTABLE) as u32;

/// CHARGEN's bytes: lines of 72 characters, each one further (RFC 864). All of them, so that a buffer is filled by one copy
/// or two: to make them takes ten times as long.
static TEXT: [u8; PERIOD as usize] = {
    let mut text = [b'\r'; PERIOD as usize];
    let mut at = 0;
    while at < text.len() {
        let (line, column) = (at / (CHARACTERS + 2), at % (CHARACTERS + 2));
        if column < CHARACTERS {
            text[at] = b' ' + ((line + column) % PRINTABLE) as u8;
        } else if column > CHARACTERS {
            text[at] = b'\n';
        }
        at += 1;
    }
    text
};

/// CHARGEN's bytes from a place on, at most so many, and never none of at least one.
pub(super) fn generated(from: u32, most: usize) -> &'static [u8] {
    let text = TEXT.get((from % PERIOD) as usize..).unwrap_or(&TEXT);
    text.get(..most).unwrap_or(text)
}

impl<R: Report> Broker<R> {
    /// A REQUEST that is allowed.
    pub(super) fn host_request(&mut self, from: usize, header: &Header) -> Step {
        let Some(service) = Service::at(header.dst_port.get()) else {
            return self.refuse_request(from, header, Refusal::Nobody);
        };
        let Some(place) = self.tables.streams.place(from, service) else {
            return self.refuse_request(from, header, Refusal::Limit);
        };
        let Some(index) = self.connect(from, HOST, header) else {
            return self.refuse_request(from, header, Refusal::Limit);
        };
        if let Some(connection) = self.connections.get(index) {
            connection.stream = place as u8;
            connection.stage = super::table::Stage::Open;
            connection.ends[1].limit = service.room();
        }
        self.count(from, Counter::Connections, 1);
        let streams = &mut self.tables.streams;
        streams.sessions = streams.sessions.wrapping_add(1);
        let session = streams.sessions;
        if let Some(stream) = streams.list.get_mut(place) {
            *stream = Some(Stream {
                presence: Presence::Here,
                cell: from,
                service,
                index,
                input: Vec::new(),
                output: Deque::new(),
                consumed: 0,
                told: 0,
                response: true,
                credit: false,
                ended: false,
                shut: false,
                session,
                asked: false,
                skipping: false,
                made: 0,
            });
        }
        Step::Done(0)
    }

    /// A packet of a connection with CID 2 that has passed all checks.
    pub(super) fn serve_host(&mut self, from: usize, index: usize, header: &Header) -> Step {
        let Some(connection) = self.connections.get(index) else { return Step::Done(0) };
        let number = usize::from(connection.stream);
        match header.op.get() {
            op::RST => self.end(index, [false, false]),
            op::CREDIT_REQUEST => {
                if let Some(stream) = self.tables.streams.get(number) {
                    stream.credit = true;
                }
            }
            op::SHUTDOWN => {
                let flags = header.flags.get();
                if let Some(stream) = self.tables.streams.get(number) {
                    if flags & shutdown::RECEIVE != 0 {
                        stream.output.clear();
                    }
                    stream.ended |= flags & shutdown::SEND != 0;
                }
                if flags & shutdown::BOTH == shutdown::BOTH {
                    // What it said before it closed counts. The RST tells that we have closed, too (5.10.6.5).
                    self.use_input(number);
                    self.end(index, [true, false]);
                }
            }
            op::RW => {
                let bytes = header.len.get();
                if let Some(connection) = self.connections.get(index) {
                    connection.ends[0].sent = connection.ends[0].sent.wrapping_add(bytes);
                }
                self.count(from, Counter::BytesSent, bytes.into());
                if self.take(from, number, bytes).is_err() {
                    // Not reached: the chain was checked. Bytes are missing, so the stream cannot go on.
                    self.reset_connection(from, index);
                }
                return Step::Done(bytes);
            }
            _ => {}
        }
        Step::Done(0)
    }

    /// Takes payload in. It fits: the credit was checked.
    fn take(&mut self, from: usize, number: usize, bytes: u32) -> Result<(), MemoryError> {
        let Some(ram) = self.client(from).map(|client| client.ram) else { return Ok(()) };
        let tables = &mut *self.tables;
        let Some(stream) = tables.streams.get(number) else { return Ok(()) };
        match stream.service {
            Service::Discard | Service::Chargen => {
                stream.consumed = stream.consumed.wrapping_add(bytes);
                return Ok(());
            }
            Service::Lines | Service::Log | Service::Echo => {}
        }
        tables.payload.pieces(0, bytes, |address, _, len| {
            let mut piece = [0; PIECE];
            let (mut address, mut left) = (address, len as usize);
            while left > 0 {
                let part = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
                ram.read(address, part)?;
                match stream.service {
                    Service::Echo => stream.put(part),
                    _ => _ = stream.input.extend_from_slice(part),
                }
                address += part.len() as u64;
                left -= part.len();
            }
            Ok(())
        })
    }

    /// Moves the streams of a cell. Returns the work done.
    pub(super) fn serve_streams(&mut self, cell: usize) -> Result<i64, Fault> {
        let mut done = 0;
        for number in 0..STREAMS {
            if !matches!(self.tables.streams.list.get(number), Some(Some(stream)) if stream.cell == cell) {
                continue;
            }
            self.use_input(number);
            done += self.serve_stream(cell, number)?;
        }
        Ok(done)
    }

    /// Sends one packet of a stream, if there is something to send.
    fn serve_stream(&mut self, cell: usize, number: usize) -> Result<i64, Fault> {
        let Some(stream) = self.tables.streams.get(number) else { return Ok(0) };
        let index = stream.index;
        let Some(connection) = self.connections.get(index) else { return Ok(0) };
        let [guest, host] = connection.ends;
        let credit = room(guest.limit, host.sent);
        let Some(stream) = self.tables.streams.get(number) else { return Ok(0) };
        let pending = match stream.service {
            _ if stream.response => 0,
            Service::Chargen => ENDLESS,
            _ => stream.output.len() as u32,
        };
        let want = pending.min(credit);
        let used = stream.consumed.wrapping_sub(stream.told);
        let operation = if stream.response {
            op::RESPONSE
        } else if want > 0 {
            op::RW
        } else if stream.ended && !stream.shut && stream.is_quiet() && stream.service != Service::Chargen {
            op::SHUTDOWN
        } else if stream.credit || used >= stream.service.room() / 2 {
            op::CREDIT_UPDATE
        } else {
            return Ok(0);
        };
        let (room, consumed) = (stream.service.room(), stream.consumed);
        let header = Header {
            src_cid: self.cid_of(HOST).into(),
            dst_cid: self.cid_of(cell).into(),
            src_port: host.port.into(),
            dst_port: guest.port.into(),
            kind: kind::STREAM.into(),
            op: operation.into(),
            flags: if operation == op::SHUTDOWN { shutdown::BOTH } else { 0 }.into(),
            buf_alloc: room.into(),
            fwd_cnt: consumed.into(),
            ..Header::default()
        };
        let tables = &mut *self.tables;
        let (Some(Some(client)), Some(stream)) = (tables.clients.get_mut(cell), tables.streams.get(number))
        else {
            return Ok(0);
        };
        let sent = client.send(&header, want, |buffer, ram, bytes| {
            buffer.payload(0, bytes, |address, _, len| {
                let (mut address, mut left) = (address, len as usize);
                if stream.service == Service::Chargen {
                    while left > 0 {
                        let part = generated(stream.made, left);
                        ram.write_block(address, part)?;
                        stream.made = (stream.made + part.len() as u32) % PERIOD;
                        address += part.len() as u64;
                        left -= part.len();
                    }
                    return Ok(());
                }
                let mut piece = [0; PIECE];
                while left > 0 {
                    let part = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
                    part.fill_with(|| stream.output.pop_front().unwrap_or_default());
                    ram.write(address, part)?;
                    address += part.len() as u64;
                    left -= part.len();
                }
                Ok(())
            })
        })?;
        let Some(bytes) = sent else { return Ok(0) };
        if stream.service == Service::Echo {
            stream.consumed = stream.consumed.wrapping_add(bytes);
        }
        stream.told = consumed;
        stream.response = false;
        stream.credit &= operation == op::RESPONSE;
        stream.shut |= operation == op::SHUTDOWN;
        if let Some(connection) = self.connections.get(index) {
            let [_, host] = &mut connection.ends;
            host.sent = host.sent.wrapping_add(bytes);
            // What was told as room is the guest's.
            host.limit = consumed.wrapping_add(room);
        }
        self.count(cell, Counter::BytesReceived, bytes.into());
        Ok(PACKET + i64::from(bytes))
    }
}

/// A request and its newline fit into the input.
const _: () = assert!(REQUEST_MAX < INPUT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_chargen_are_those_of_the_rfc_wherever_a_piece_begins() {
        let byte = |at: u32| match (at / 74 % 95, at % 74) {
            (_, 72) => b'\r',
            (_, 73) => b'\n',
            (line, column) => b' ' + ((line + column) % 95) as u8,
        };
        for from in (0..2 * PERIOD).step_by(if cfg!(miri) { 997 } else { 7 }) {
            for most in [0, 1, 71, 74, 75, 4096, 2 * PERIOD as usize] {
                let piece = generated(from, most);
                let wanted: std::vec::Vec<u8> =
                    (from..from + piece.len() as u32).map(|at| byte(at % PERIOD)).collect();
                assert_eq!(piece, wanted, "{most} bytes from {from}");
                assert_eq!(piece.len(), most.min((PERIOD - from % PERIOD) as usize));
            }
        }
    }
}
