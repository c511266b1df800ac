//! One packet of a guest: what it means for its connection, and its way to the other end.

use partita_protocol::ivc_stats::Counter;
use partita_virtio::queue::Fault;
use partita_virtio::vsock::{Header, Payload, feature, kind, op};

use super::table::{HOST, Stage};
use super::{Broker, Refusal, Report, Violation};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is done with; this many bytes were moved.
    Done(u32),
    /// Its receiver has no buffers. This many bytes were moved.
    Wait(u32),
}

/// A packet between two ends of a connection.
struct Passage<'a> {
    from: usize,
    to: usize,
    index: usize,
    /// Which end `from` is.
    end: usize,
    header: &'a Header,
}

impl<R: Report> Broker<R> {
    /// Deals with a packet whose payload is in `tables.payload` and of which `offset` bytes have gone already.
    pub(super) fn packet(&mut self, from: usize, header: &Header, offset: u32) -> Step {
        if header.src_cid.get() != self.cid_of(from) {
            // Whoever is named has nothing to do with it, so nobody is answered.
            self.violation(from, Violation::Source);
            return Step::Done(0);
        }
        if self.refusing {
            return self.turn_away(from, header, Refusal::Held);
        }
        let Some(to) = self.cell_of(header.dst_cid.get()) else {
            return self.turn_away(from, header, Refusal::Nobody);
        };
        let known = match header.kind.get() {
            kind::STREAM => true,
            kind::SEQPACKET => self.negotiated(from, feature::SEQPACKET),
            _ => false,
        };
        if !known {
            self.violation(from, Violation::Type);
            return self.refuse(from, header);
        }
        let (source, target) = ((from, header.src_port.get()), (to, header.dst_port.get()));
        let found = self.connections.find(source, target);
        let operation = header.op.get();
        let Some((index, end)) = found else {
            return match operation {
                op::REQUEST => self.request(from, to, header),
                op::RST => Step::Done(0),
                op::RESPONSE | op::SHUTDOWN | op::RW | op::CREDIT_UPDATE | op::CREDIT_REQUEST => {
                    self.refuse(from, header)
                }
                _ => {
                    self.violation(from, Violation::Operation);
                    self.refuse(from, header)
                }
            };
        };
        let Some(connection) = self.connections.get(index) else { return Step::Done(0) };
        let (stage, same_kind) = (connection.stage, connection.kind == header.kind.get());
        if stage == Stage::Over {
            return self.late(Passage { from, to, index, end, header });
        }
        if let Err(violation) = self.check(index, end, header, same_kind, offset) {
            self.violation(from, violation);
            self.reset_connection(from, index);
            return Step::Done(0);
        }
        let passage = Passage { from, to, index, end, header };
        if to == HOST { self.serve_host(from, index, header) } else { self.pass(&passage, offset) }
    }

    /// What a connection's state, lengths and credit say about a packet. Takes over the credit that it tells.
    fn check(
        &mut self,
        index: usize,
        end: usize,
        header: &Header,
        same_kind: bool,
        offset: u32,
    ) -> Result<(), Violation> {
        let available = self.tables.payload.bytes();
        let Some(connection) = self.connections.get(index) else { return Err(Violation::State) };
        let allowed = match (header.op.get(), connection.stage) {
            (op::RST, _) => true,
            (op::RESPONSE, Stage::Requested) => end == 1,
            (op::SHUTDOWN | op::CREDIT_UPDATE | op::CREDIT_REQUEST, stage) => {
                stage == Stage::Open || end == 0
            }
            (op::RW, stage) => stage == Stage::Open,
            (op::REQUEST | op::RESPONSE, _) => false,
            _ => return Err(Violation::Operation),
        };
        if !same_kind {
            return Err(Violation::Type);
        }
        if !allowed {
            return Err(Violation::State);
        }
        let length = header.len.get();
        let limit = if header.op.get() == op::RW { available } else { 0 };
        if u64::from(length) > limit {
            return Err(Violation::Length);
        }
        let [a, b] = &mut connection.ends;
        let (me, peer) = if end == 0 { (a, b) } else { (b, a) };
        let consumed = header.fwd_cnt.get();
        if header.op.get() != op::RST {
            if is_after(consumed, peer.sent) {
                return Err(Violation::Credit);
            }
            let told = consumed.wrapping_add(credit(header.buf_alloc.get()));
            if is_after(told, me.limit) {
                me.limit = told;
            }
        }
        if offset == 0 && header.op.get() == op::RW && length > room(peer.limit, me.sent) {
            return Err(Violation::Overrun);
        }
        Ok(())
    }

    /// To the other guest.
    fn pass(&mut self, passage: &Passage<'_>, offset: u32) -> Step {
        let Passage { from, to, index, end, header } = *passage;
        let mut moved = 0;
        let total = if header.op.get() == op::RW { header.len.get() } else { 0 };
        loop {
            let want = total.saturating_sub(offset.saturating_add(moved));
            match self.forward(from, to, header, offset.saturating_add(moved), want) {
                Ok(Some(bytes)) => {
                    moved = moved.saturating_add(bytes);
                    if let Some(connection) = self.connections.get(index) {
                        let sender = if end == 0 { &mut connection.ends[0] } else { &mut connection.ends[1] };
                        sender.sent = sender.sent.wrapping_add(bytes);
                    }
                    if bytes == want {
                        break;
                    }
                }
                Ok(None) => return Step::Wait(moved),
                Err(fault) => {
                    // The receiver's fault. Its connections are over now.
                    self.break_client(to, fault);
                    return Step::Done(moved);
                }
            }
        }
        match header.op.get() {
            op::RST => self.end(index, [false, false]),
            op::RESPONSE => {
                if let Some(connection) = self.connections.get(index) {
                    connection.stage = Stage::Open;
                }
                self.count(to, Counter::Connections, 1);
            }
            _ => {}
        }
        Step::Done(moved)
    }

    /// Puts up to `want` bytes from `offset` into one buffer of `to`.
    fn forward(
        &mut self,
        from: usize,
        to: usize,
        header: &Header,
        offset: u32,
        want: u32,
    ) -> Result<Option<u32>, Fault> {
        let Some(source) = self.client(from).map(|client| client.ram) else { return Ok(Some(want)) };
        let tables = &mut *self.tables;
        let payload: &Payload = &tables.payload;
        let Some(Some(target)) = tables.clients.get_mut(to) else { return Ok(Some(want)) };
        let sent = target.send(header, want, |buffer, ram, bytes| {
            let mut from = offset;
            buffer.payload(0, bytes, |address, _, len| {
                payload.pieces(from, len, |piece, done, len| -> Result<(), Fault> {
                    // `piece` is in the sender's RAM: that was checked when the chain was read.
                    Ok(source.copy_to(piece, ram, address + u64::from(done), len)?)
                })?;
                from += len;
                Ok(())
            })
        })?;
        if let Some(bytes) = sent {
            self.count(from, Counter::BytesSent, bytes.into());
            self.count(to, Counter::BytesReceived, bytes.into());
        }
        Ok(sent)
    }

    /// A packet of a connection that is over but of which somebody has still to hear.
    fn late(&mut self, passage: Passage<'_>) -> Step {
        let Passage { from, to, header, .. } = passage;
        if header.op.get() != op::REQUEST {
            return Step::Done(0);
        }
        // The same two ports again: the ends hear of the old connection first.
        for cell in [from, to] {
            if let Err(fault) = self.pay(cell) {
                self.break_client(cell, fault);
            }
        }
        let (source, target) = ((from, header.src_port.get()), (to, header.dst_port.get()));
        match self.connections.find(source, target) {
            None => self.request(from, to, header),
            Some(_) => Step::Wait(0),
        }
    }

    /// A guest asks for a connection.
    fn request(&mut self, from: usize, to: usize, header: &Header) -> Step {
        let port = header.dst_port.get();
        let refusal = if to == from || !self.rules.allows(from, to, port) {
            Some(Refusal::NotAllowed)
        } else if to != HOST && !self.is_live(to) {
            Some(Refusal::Nobody)
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.refuse_request(from, header, why);
        }
        if header.len.get() != 0 {
            self.violation(from, Violation::Length);
            return self.refuse(from, header);
        }
        let kind = header.kind.get();
        let seqpacket = kind == kind::SEQPACKET && (to == HOST || !self.negotiated(to, feature::SEQPACKET));
        if seqpacket {
            return self.refuse_request(from, header, Refusal::Nobody);
        }
        if to == HOST {
            return self.host_request(from, header);
        }
        let Some(index) = self.connect(from, to, header) else {
            return self.refuse_request(from, header, Refusal::Limit);
        };
        match self.forward(from, to, header, 0, 0) {
            Ok(Some(_)) => return Step::Done(0),
            Ok(None) => {
                // As if it had not come yet.
                self.end(index, [false, false]);
                return Step::Wait(0);
            }
            Err(fault) => self.break_client(to, fault),
        }
        Step::Done(0)
    }

    /// Adds a connection with the credit that its REQUEST tells.
    pub(super) fn connect(&mut self, from: usize, to: usize, header: &Header) -> Option<usize> {
        let (source, target) = ((from, header.src_port.get()), (to, header.dst_port.get()));
        let index = self.connections.add(source, target, header.kind.get())?;
        if let Some(connection) = self.connections.get(index) {
            connection.ends[0].limit = credit(header.buf_alloc.get());
        }
        for cell in [from, to] {
            self.count(cell, Counter::Open, 1);
        }
        Some(index)
    }

    pub(super) fn refuse_request(&mut self, from: usize, header: &Header, why: Refusal) -> Step {
        self.count(from, Counter::Refused, 1);
        self.report.refused(from, header.dst_cid.get(), header.dst_port.get(), why);
        self.refuse(from, header)
    }

    /// There is no connection, and there will be none.
    fn turn_away(&mut self, from: usize, header: &Header, why: Refusal) -> Step {
        match header.op.get() {
            op::REQUEST => self.refuse_request(from, header, why),
            _ => self.refuse(from, header),
        }
    }

    /// Answers with a RST.
    fn refuse(&mut self, from: usize, header: &Header) -> Step {
        if let Some(client) = self.client(from) {
            client.refuse(header);
        }
        Step::Done(0)
    }

    pub(super) fn violation(&mut self, cell: usize, violation: Violation) {
        self.count(cell, Counter::Violations, 1);
        self.report.violation(cell, violation);
    }

    fn negotiated(&self, cell: usize, feature: u64) -> bool {
        matches!(self.tables.clients.get(cell), Some(Some(client)) if client.features & feature != 0)
    }
}

/// Credit that is believed: half of what the counters can tell apart.
const fn credit(buf_alloc: u32) -> u32 {
    if buf_alloc > i32::MAX as u32 { i32::MAX as u32 } else { buf_alloc }
}

/// Bytes that may be sent after `sent` up to `limit`.
pub(super) const fn room(limit: u32, sent: u32) -> u32 {
    if is_after(limit, sent) { limit.wrapping_sub(sent) } else { 0 }
}

/// Whether `a` is after `b` among counters that wrap.
pub(super) const fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
