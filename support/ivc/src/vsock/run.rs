//! Whose turn it is, and what is done in it.

use partita_virtio::queue::Fault;
use partita_virtio::vsock::{self, Header, op};

use super::client::{WAITING, Waiting};
use super::packets::Step;
use super::table::{HOST, Stage};
use super::{BUDGET, Broker, PACKET, QUANTUM, Report};
use partita_protocol::MAX_CELLS;

impl<R: Report> Broker<R> {
    /// The VMM of `cell` says that its guest made buffers available.
    pub fn kicked(&mut self, cell: usize) {
        if let Some(client) = self.client(cell).filter(|client| client.live) {
            client.ready = true;
            if let Some(Some(queue)) = client.queues.get_mut(vsock::TX) {
                // Until the queue is seen empty, a kick tells nothing new. A fault comes up when the queue is next read.
                let _ = queue.disable_kicks();
            }
        }
    }

    /// Does a bounded amount of work, cell by cell in turns. True if there is more to do: the caller must see to it that it
    /// is called again soon.
    #[must_use]
    pub fn run(&mut self, now: u64) -> bool {
        self.read_manage();
        self.deadline = None;
        let (mut budget, mut idle) = (BUDGET, 0);
        while idle < MAX_CELLS && budget > 0 {
            let cell = self.turn;
            self.turn = (cell + 1) % MAX_CELLS;
            let done = match self.serve(cell, now) {
                Ok(done) => done,
                Err(fault) => {
                    self.break_client(cell, fault);
                    PACKET
                }
            };
            idle = if done == 0 { idle + 1 } else { 0 };
            budget -= done;
        }
        for cell in 0..MAX_CELLS {
            match self.client(cell).map(super::client::Client::settle) {
                Some(Ok(true)) => self.notify |= 1 << cell,
                Some(Err(fault)) => self.break_client(cell, fault),
                _ => {}
            }
        }
        budget <= 0
    }

    /// Count of the clock at which [`Broker::run`] wants to be called although nothing happens.
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// One turn of a cell. Returns the work done.
    fn serve(&mut self, cell: usize, now: u64) -> Result<i64, Fault> {
        if !self.is_live(cell) {
            return Ok(0);
        }
        let mut done = self.pay(cell)?;
        done += self.serve_streams(cell)?;
        done += self.try_waiting(cell)?;
        while done < QUANTUM && self.is_live(cell) {
            match self.fetch(cell, now)? {
                0 => break,
                more => done += more,
            }
        }
        self.give_up(cell, now)?;
        Ok(done)
    }

    /// Sends what is owed to a cell: the event, RSTs of connections that are over, RSTs for stray packets.
    pub(super) fn pay(&mut self, cell: usize) -> Result<i64, Fault> {
        let mut done = 0;
        if let Some(client) = self.client(cell).filter(|client| client.event_owed)
            && client.send_event()?
        {
            client.event_owed = false;
            done += PACKET;
        }
        while let Some((index, end)) = self.connections.first_owed(cell) {
            let Some(connection) = self.connections.get(index) else { break };
            let kind = connection.kind;
            let [a, b] = connection.ends;
            let (me, peer) = if end == 0 { (a, b) } else { (b, a) };
            let header = Header {
                src_cid: self.cid_of(peer.cell()).into(),
                dst_cid: self.cid_of(cell).into(),
                src_port: peer.port.into(),
                dst_port: me.port.into(),
                kind: kind.into(),
                op: op::RST.into(),
                ..Header::default()
            };
            match self.client(cell).map(|client| client.send_control(&header)).transpose()? {
                Some(true) => self.connections.pay_owed(cell),
                _ => return Ok(done),
            }
            done += PACKET;
        }
        let Some(client) = self.client(cell) else { return Ok(done) };
        while let Some(header) = client.strays.front().copied() {
            if !client.send_control(&header)? {
                break;
            }
            client.strays.pop_front();
            done += PACKET;
        }
        Ok(done)
    }

    /// Tries the packets that wait, in order for each receiver.
    fn try_waiting(&mut self, cell: usize) -> Result<i64, Fault> {
        let (mut done, mut place, mut blocked) = (0, 0, 0u16);
        while done < QUANTUM {
            let Some(client) = self.client(cell).filter(|client| client.may_fetch()) else { break };
            let Some(packet) = client.waiting.get(place).copied() else { break };
            if blocked & 1 << packet.to != 0 {
                place += 1;
                continue;
            }
            let Some(Some(queue)) = client.queues.get(vsock::TX) else { break };
            let mut chain = queue.chain_at(packet.head)?;
            // The header is the one that was read first. The chain may have changed: its payload is checked again.
            self.tables.payload.parse(&mut chain)?;
            match self.packet(cell, &packet.header, packet.offset) {
                Step::Done(moved) => {
                    done += PACKET + i64::from(moved);
                    if let Some(chains) = self.pages.cells.get(cell)
                        && let Some(client) = self.client(cell).filter(|client| client.live)
                    {
                        client.finish_waiting(chains, place)?;
                    }
                }
                Step::Wait(moved) => {
                    done += i64::from(moved);
                    blocked |= 1 << packet.to;
                    if let Some(waiting) = self.client(cell).and_then(|c| c.waiting.get_mut(place)) {
                        waiting.offset = waiting.offset.saturating_add(moved);
                    }
                    place += 1;
                }
            }
        }
        Ok(done)
    }

    /// Takes the next packet of a cell, if it may. Returns the work done.
    fn fetch(&mut self, cell: usize, now: u64) -> Result<i64, Fault> {
        let Some(client) = self.client(cell) else { return Ok(0) };
        if !client.ready || !client.may_fetch() || client.waiting.is_full() {
            return Ok(0);
        }
        let Some(Some(queue)) = client.queues.get_mut(vsock::TX) else { return Ok(0) };
        let mut chain = match queue.pop()? {
            Some(chain) => chain,
            None => {
                client.ready = queue.enable_kicks()?;
                // Another turn if there is something after all.
                return Ok(client.ready.into());
            }
        };
        let header = self.tables.payload.parse(&mut chain)?;
        let head = chain.head();
        let to = self.cell_of(header.dst_cid.get()).unwrap_or(HOST);
        let before = |client: &super::client::Client| client.waiting.iter().any(|packet| packet.to == to);
        let step = if to != HOST && self.client(cell).is_some_and(|client| before(client)) {
            Step::Wait(0)
        } else {
            self.packet(cell, &header, 0)
        };
        let pages = self.pages;
        let Some(client) = self.client(cell).filter(|client| client.live) else { return Ok(PACKET) };
        match step {
            Step::Done(moved) => {
                client.finish(head)?;
                Ok(PACKET + i64::from(moved))
            }
            Step::Wait(moved) => {
                if let Some(chains) = pages.cells.get(cell) {
                    client.wait(chains, Waiting { head, offset: moved, header, to, since: now })?;
                }
                Ok(PACKET + i64::from(moved))
            }
        }
    }

    /// A cell whose waiting packets leave no room for others: those that have waited too long are given up, with their
    /// connections.
    fn give_up(&mut self, cell: usize, now: u64) -> Result<(), Fault> {
        let patience = self.patience;
        let Some(client) = self.client(cell) else { return Ok(()) };
        if client.waiting.len() < WAITING {
            return Ok(());
        }
        // In order of arrival for each receiver, and so altogether.
        let Some(oldest) = client.waiting.iter().min_by_key(|packet| packet.since).copied() else {
            return Ok(());
        };
        let deadline = oldest.since.saturating_add(patience);
        if now < deadline {
            self.deadline = Some(self.deadline.map_or(deadline, |other| other.min(deadline)));
            return Ok(());
        }
        self.report.gave_up(cell, oldest.to);
        let mut place = 0;
        while let Some(packet) = self.client(cell).and_then(|client| client.waiting.get(place).copied()) {
            if packet.to != oldest.to {
                place += 1;
                continue;
            }
            let source = (cell, packet.header.src_port.get());
            let target = (packet.to, packet.header.dst_port.get());
            match self.connections.find(source, target) {
                Some((index, _)) => {
                    let over = self.connections.get(index).is_none_or(|c| c.stage == Stage::Over);
                    if !over {
                        self.reset_connection(cell, index);
                    }
                }
                None => {
                    if let Some(client) = self.client(cell).filter(|client| client.may_fetch()) {
                        client.refuse(&packet.header);
                    }
                }
            }
            if let Some(chains) = self.pages.cells.get(cell)
                && let Some(client) = self.client(cell)
            {
                client.finish_waiting(chains, place)?;
            }
        }
        if let Some(client) = self.client(cell) {
            client.ready = true;
        }
        // Those that are owed a RST get it in the next turn: there is one, at once.
        self.deadline = Some(now);
        Ok(())
    }
}
