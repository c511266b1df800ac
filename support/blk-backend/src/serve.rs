//! The data plane: chains from the guests' rings to the device, completions back.

use core::sync::atomic::Ordering;

use partita_protocol::MAX_QUEUES;
use partita_storage::device::{BlockDevice, Command, Completion, Health, Outcome, Refused, Request, SECTOR};
use partita_virtio::blk::{BlkStatus, ID_BYTES, Limits, Operation, Parsed, parse};
use partita_virtio::queue::{Chain, Fault, Queue};

use crate::count::Done;
use crate::finish::is_transfer;
use crate::inflight::{Entry, Owner};
use crate::patience;
use crate::{
    After, BUDGET, Backend, Flight, MAX_FLIGHTS, Report, Ring, SEG_MAX, State, Tables, offer, ring_bit,
};

/// What became of a chain.
enum Begun {
    /// It is with the device, and this many bytes.
    Submitted(u64),
    /// It is answered and its used element published. The guest wants to know.
    Answered { interrupt: bool },
}

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// The VMM of `client` says that its guest made buffers available. In which queue it does not say: a look tells.
    pub fn kicked(&mut self, client_id: usize) {
        let Some(client) = self.client(client_id) else { return };
        let mut ready = 0;
        let mut rings = client.started;
        while rings != 0 {
            let ring = rings.trailing_zeros() as usize;
            rings &= rings - 1;
            let Some(Some(disk)) = client.disks.get_mut(ring / MAX_QUEUES) else { continue };
            let Some(queue) = disk.queue(ring % MAX_QUEUES) else { continue };
            // A fault comes up when the queue is next read.
            if queue.has_available() != Ok(false) {
                // Until the queue is seen empty, a kick tells nothing new.
                let _ = queue.disable_kicks();
                ready |= 1 << ring;
            }
        }
        client.ready |= ready;
        if ready != 0 {
            self.ready |= 1 << client_id;
        }
    }

    /// The device interrupted: takes what is finished. [`Backend::run`] has to follow, which arms the device again.
    pub fn interrupt(&mut self) {
        self.device.acknowledge();
        self.collect();
        if let Health::Stopped(breach) = self.device.health() {
            self.stopped(breach);
        }
    }

    /// Takes what is finished. True if something was.
    pub(crate) fn collect(&mut self) -> bool {
        let mut finished = 0u64;
        self.look_at_clock();
        // Each takes one of the requests in flight, and none is added here.
        let mut next = self.device.complete();
        while let Some(completion) = next {
            let done;
            (done, next) = self.finish_plain(completion);
            if done == 0 {
                finished |= self.finish(completion);
                next = self.device.complete();
            }
            finished |= done;
        }
        self.publish(finished);
        finished != 0
    }

    /// Fetches chains, in turns, as far as the budget and the device's depth go, and tells the device; takes what is
    /// finished already; counts what the guests are owed. Ends with the device armed if it has something to do. True if the
    /// budget is spent and there is more to do, with nothing in flight that would bring an interrupt: the caller must see to
    /// it that it is called again.
    #[must_use]
    pub fn run(&mut self) -> bool {
        let mut budget = BUDGET;
        loop {
            let before = self.flying;
            self.look_at_clock();
            self.fetch(&mut budget);
            self.device.kick();
            // A fast device is done by now, or soon, and its interrupt was not asked for yet.
            let begun = self.flying.saturating_sub(before);
            let collected = begun != 0 && self.watch(begun) && self.collect();
            // Each further round has taken at least one request in flight, and `budget` bounds how many are added.
            if collected && self.ready != 0 && budget > 0 {
                continue;
            }
            if self.flying == 0 {
                break;
            }
            // What was collected may have left a flush to do.
            self.device.kick();
            if !self.device.arm() {
                break;
            }
            self.collect();
        }
        self.settle();
        // Whatever was held back by a full device or share goes on with the next completion.
        budget == 0 && self.ready != 0 && self.flying == 0
    }

    /// Watches the device until it has finished as many requests as it was just given, as long as that is worth it. True if
    /// any is finished.
    #[inline]
    fn watch(&mut self, begun: u16) -> bool {
        let looks = self.patience.looks();
        let (mut vain, mut finished) = (0, self.device.finished());
        while finished < begun && vain + 1 < looks {
            vain += 1;
            patience::relax();
            finished = self.device.finished();
        }
        self.patience.learn(looks, (finished >= begun).then_some(vain));
        finished != 0
    }

    /// One look for all that begins, or ends, at once.
    fn look_at_clock(&mut self) {
        if let Some(counting) = self.counting {
            self.now = (counting.clock)();
        }
    }

    pub(crate) fn mark_ready(&mut self, client: usize, disk: usize, queue: usize) {
        if let Some(entry) = self.client(client) {
            entry.ready |= ring_bit(disk, queue);
            self.ready |= 1 << client;
        }
    }

    pub(crate) fn clear_ready(&mut self, client: usize, disk: usize, queue: usize) {
        if let Some(entry) = self.client(client) {
            entry.ready &= !ring_bit(disk, queue);
            if entry.ready == 0 {
                self.ready &= !(1 << client);
                self.turns.idle(client);
            }
        }
    }

    /// One chain of a queue of one of the client's disks. True if there may be another.
    pub(crate) fn serve(&mut self, client_id: usize, disk_id: usize, queue_id: usize) -> bool {
        if self.limits.holds(client_id, disk_id) {
            self.clear_ready(client_id, disk_id, queue_id);
            return false;
        }
        let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else {
            self.clear_ready(client_id, disk_id, queue_id);
            return false;
        };
        let begun = match queue.pop() {
            Ok(Some(chain)) => self.begin(client_id, disk_id, queue_id, chain, None),
            Ok(None) => return self.found_empty(client_id, disk_id, queue_id),
            Err(fault) => Err(fault),
        };
        match begun {
            Ok(Begun::Submitted(bytes)) => {
                self.turns.charge(client_id, bytes);
                self.limits.charge(client_id, disk_id, bytes);
            }
            Ok(Begun::Answered { interrupt }) => {
                self.turns.charge(client_id, 0);
                self.limits.charge(client_id, disk_id, 0);
                self.owe(client_id, disk_id, queue_id, interrupt);
            }
            Err(fault) => {
                self.break_disk(client_id, disk_id, fault);
                return false;
            }
        }
        true
    }

    /// A queue has nothing more: asks for a kick, unless a completion will do. True if there is something by now.
    #[inline]
    pub(crate) fn found_empty(&mut self, client_id: usize, disk_id: usize, queue_id: usize) -> bool {
        if self.is_quiet(client_id, disk_id, queue_id) {
            return false;
        }
        #[cfg(test)]
        crate::tests::before_sleep();
        let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else { return false };
        match queue.enable_kicks() {
            Ok(true) => return true,
            Ok(false) => self.clear_ready(client_id, disk_id, queue_id),
            Err(fault) => self.break_disk(client_id, disk_id, fault),
        }
        false
    }

    /// Whether an empty queue is left until the disk's next completion. If so, no kick is asked for.
    #[inline]
    fn is_quiet(&mut self, client_id: usize, disk_id: usize, queue_id: usize) -> bool {
        let Some(client) = self.client(client_id) else { return false };
        let Some(Some(disk)) = client.disks.get_mut(disk_id) else { return false };
        if !disk.is_busy() {
            return false;
        }
        if let Some(queue) = disk.queue(queue_id) {
            let _ = queue.disable_kicks();
        }
        client.quiet |= ring_bit(disk_id, queue_id);
        self.clear_ready(client_id, disk_id, queue_id);
        true
    }

    /// Hands a chain to the device, under the number `id` if it has one from an earlier life.
    fn begin(
        &mut self,
        client_id: usize,
        disk_id: usize,
        queue_id: usize,
        chain: Chain,
        id: Option<usize>,
    ) -> Result<Begun, Fault> {
        let below = self.device.properties();
        let limits = Limits { seg_max: offer::seg_max(below), size_max: below.size_max };
        let parsed = parse::<SEG_MAX>(chain, &limits, &mut self.tables.segments)?;
        let id = id.unwrap_or(self.free.trailing_zeros() as usize);
        let owner =
            Owner { client: client_id as u8, disk: disk_id as u8, queue: queue_id as u8, head: chain.head() };
        match self.submit(owner, id, &parsed) {
            Ok(bytes) => Ok(Begun::Submitted(bytes)),
            Err(status) => {
                let (page, counting) = (self.page, self.counting);
                let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else {
                    return Err(Fault::Framing);
                };
                let position = queue.next_used();
                answer(queue, chain.head(), &parsed, status)?;
                if let Some(counting) = counting {
                    counting.refused(client_id, disk_id, &parsed, status);
                }
                if let Entry::Taken(owner) = page.get(id) {
                    page.set(id, Entry::Finishing(owner, position));
                }
                // Published at once: the next chain may only be popped when this one is in the ring (see `inflight`).
                let interrupt = queue.publish()?;
                page.set(id, Entry::Free);
                Ok(Begun::Answered { interrupt })
            }
        }
    }

    /// Checks the request and submits it. `Err` is the status to answer with (it may be Ok).
    fn submit(&mut self, owner: Owner, id: usize, parsed: &Parsed) -> Result<u64, BlkStatus> {
        let operation = parsed.operation?;
        let (client_id, disk_id) = (usize::from(owner.client), usize::from(owner.disk));
        let below = self.device.properties();
        let Some(disk) = self
            .tables
            .clients
            .get(client_id)
            .and_then(Option::as_ref)
            .and_then(|c| c.disks.get(disk_id)?.as_ref())
        else {
            return Err(BlkStatus::IoErr);
        };
        let read_only = offer::is_read_only(below, &disk.config);
        let bytes = self.tables.segments.bytes();
        let (command, sector, sectors) = match operation {
            Operation::Read { sector } => (Command::Read, sector, bytes / SECTOR),
            Operation::Write { sector } => (Command::Write, sector, bytes / SECTOR),
            // Without a cache everything complete is durable already.
            Operation::Flush if !below.flush => return Err(BlkStatus::Ok),
            Operation::Flush => (Command::Flush, 0, 0),
            Operation::GetId => return Err(self.get_id(client_id, disk_id)),
            Operation::Discard { sector, sectors } => (Command::Discard, sector, sectors.into()),
            Operation::WriteZeroes { sector, sectors, unmap } => {
                (Command::WriteZeroes { unmap }, sector, sectors.into())
            }
        };
        if read_only && !matches!(command, Command::Read | Command::Flush) {
            return Err(BlkStatus::IoErr);
        }
        let at = match command {
            Command::Flush => 0,
            _ => match disk.config.window.map(sector, sectors) {
                Some(at) => at,
                None => {
                    self.report.out_of_window(client_id, disk_id, sector);
                    return Err(BlkStatus::IoErr);
                }
            },
        };
        let flushes = disk.write_through && !matches!(command, Command::Read | Command::Flush);
        let after = if flushes { After::Flush } else { After::Answer };
        let segments = match command {
            Command::Read | Command::Write => self.tables.segments.as_slice(),
            _ => &[],
        };
        let request = Request {
            id: id as u16,
            command,
            sector: at,
            sectors: u32::try_from(sectors).map_err(|_| BlkStatus::IoErr)?,
            segments,
        };
        self.page.set(id, Entry::Taken(owner));
        match self.device.submit(&request) {
            Ok(()) => {}
            Err(Refused::Unsupported) => return Err(BlkStatus::Unsupp),
            Err(_) => return Err(BlkStatus::IoErr),
        }
        self.free &= !(1 << id);
        self.flying += 1;
        if let Some(flight) = self.tables.flights.get_mut(id) {
            *flight = Some(Flight {
                owner,
                parsed: *parsed,
                after,
                bytes,
                began: self.now,
                tick: self.recovery.now(),
            });
        }
        let counting = self.counting;
        if let Some(client) = self.client(client_id) {
            client.in_flight += 1;
            if let Some(Some(disk)) = client.disks.get_mut(disk_id) {
                disk.in_flight += 1;
                disk.others += u16::from(!is_transfer(parsed));
                if let Some(counting) = counting {
                    counting.in_flight(client_id, disk_id, disk.in_flight);
                }
            }
        }
        Ok(bytes)
    }

    /// Writes the serial number into the segments. They are physical addresses in the guest's own RAM.
    fn get_id(&mut self, client_id: usize, disk_id: usize) -> BlkStatus {
        let Some(client) = self.tables.clients.get(client_id).and_then(Option::as_ref) else {
            return BlkStatus::IoErr;
        };
        let Some(Some(disk)) = client.disks.get(disk_id) else { return BlkStatus::IoErr };
        let mut rest: &[u8] = &disk.config.serial;
        for segment in self.tables.segments.as_slice() {
            let (part, after) = rest.split_at(rest.len().min(segment.len as usize));
            let gpa = segment.paddr - client.ram.paddr() + client.ram.ipa();
            if client.ram.write(gpa, part).is_err() {
                return BlkStatus::IoErr;
            }
            rest = after;
        }
        if self.tables.segments.bytes() < ID_BYTES as u64 { BlkStatus::IoErr } else { BlkStatus::Ok }
    }

    /// One completion. Returns the bit of its number if it is to be released after the used ring was published.
    pub(crate) fn finish(&mut self, completion: Completion) -> u64 {
        let id = usize::from(completion.id);
        let Tables { flights, clients, .. } = &mut *self.tables;
        let Some(place) = flights.get_mut(id) else { return 0 };
        let Some(flight) = place else { return 0 };
        let owner = flight.owner;
        let (client_id, disk_id) = (usize::from(owner.client), usize::from(owner.disk));
        let queue_id = usize::from(owner.queue);
        let mut status = match completion.outcome {
            Outcome::Done => BlkStatus::Ok,
            Outcome::IoError | Outcome::Incomplete | Outcome::Lost => BlkStatus::IoErr,
            Outcome::Unsupported => BlkStatus::Unsupp,
        };
        if let (Outcome::IoError | Outcome::Incomplete, Ok(operation)) =
            (completion.outcome, flight.parsed.operation)
        {
            self.report.request_failed(client_id, disk_id, operation, completion.outcome);
        }
        if flight.after == After::Flush && status == BlkStatus::Ok {
            let flush =
                Request { id: completion.id, command: Command::Flush, sector: 0, sectors: 0, segments: &[] };
            if self.device.submit(&flush).is_ok() {
                flight.after = After::Answer;
                return 0;
            }
            status = BlkStatus::IoErr;
        }
        self.flying = self.flying.saturating_sub(1);
        let Some(Some(client)) = clients.get_mut(client_id) else {
            *place = None;
            return 1 << id;
        };
        client.in_flight = client.in_flight.saturating_sub(1);
        let counters = client.counters(disk_id);
        let Some(Some(disk)) = client.disks.get_mut(disk_id) else {
            *place = None;
            return 1 << id;
        };
        disk.in_flight = disk.in_flight.saturating_sub(1);
        disk.others = disk.others.saturating_sub(u16::from(!is_transfer(&flight.parsed)));
        if let Some(counting) = self.counting {
            let done = Done { bytes: flight.bytes, status, began: flight.began, now: self.now };
            counting.answered(client_id, disk_id, &flight.parsed, &done, disk.in_flight);
        }
        let page = self.page;
        let fault = match (disk.state, disk.rings.get_mut(queue_id)) {
            (State::Live, Some(Ring::Live(queue))) => {
                let position = queue.next_used();
                let answered = answer(queue, owner.head, &flight.parsed, status);
                client.unpublished |= ring_bit(disk_id, queue_id);
                page.set(id, Entry::Finishing(owner, position));
                self.unpublished |= 1 << client_id;
                answered.err()
            }
            (State::Draining, _) if disk.in_flight == 0 => {
                disk.state = State::Idle;
                page.set_live(client_id, disk_id, false);
                if let Some(counters) = counters {
                    #[cfg(test)]
                    partita_virtio::fake::crash::store();
                    counters.needs_reset.store(0, Ordering::Release);
                    #[cfg(test)]
                    partita_virtio::fake::crash::store();
                    counters.reset.fetch_add(1, Ordering::Release);
                }
                self.notify |= 1 << client_id;
                None
            }
            _ => None,
        };
        *place = None;
        if client.look_again(disk_id) {
            self.ready |= 1 << client_id;
        }
        if let Some(fault) = fault {
            self.break_disk(client_id, disk_id, fault);
        }
        1 << id
    }

    /// Publishes the used elements of the requests in `finished` and releases their numbers.
    fn publish(&mut self, finished: u64) {
        if finished == 0 {
            return;
        }
        let mut clients = core::mem::take(&mut self.unpublished);
        while clients != 0 {
            let client_id = clients.trailing_zeros() as usize;
            clients &= clients - 1;
            let Some(client) = self.client(client_id) else { continue };
            let mut rings = core::mem::take(&mut client.unpublished);
            while rings != 0 {
                let ring = rings.trailing_zeros() as usize;
                rings &= rings - 1;
                let (disk_id, queue_id) = (ring / MAX_QUEUES, ring % MAX_QUEUES);
                // None if an earlier one of the disk's broke a rule.
                let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else { continue };
                match queue.publish() {
                    Ok(interrupt) => self.owe(client_id, disk_id, queue_id, interrupt),
                    Err(fault) => self.break_disk(client_id, disk_id, fault),
                }
            }
        }
        let mut rest = finished;
        while rest != 0 {
            let id = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            self.page.set(id, Entry::Free);
        }
        self.free |= finished & self.all;
    }

    pub(crate) fn release_id(&mut self, id: usize) {
        self.free |= 1 << id & self.all;
    }

    /// The guest wants an interrupt for what was published.
    fn owe(&mut self, client_id: usize, disk_id: usize, queue_id: usize, interrupt: bool) {
        if interrupt && let Some(bits) = self.owing.get_mut(client_id) {
            *bits |= ring_bit(disk_id, queue_id);
            self.notify |= 1 << client_id;
        }
    }

    /// Counts each queue's notification once per run, however many batches it had.
    fn settle(&mut self) {
        // Whom nothing is owed may be among them.
        let mut clients = self.notify;
        while clients != 0 {
            let client_id = clients.trailing_zeros() as usize;
            clients &= clients - 1;
            let Some(Some(client)) = self.tables.clients.get(client_id) else { continue };
            let Some(rings) = self.owing.get_mut(client_id) else { continue };
            while *rings != 0 {
                let ring = rings.trailing_zeros() as usize;
                *rings &= *rings - 1;
                let counters = client.counters(ring / MAX_QUEUES);
                if let Some(used) = counters.and_then(|counters| counters.used.get(ring % MAX_QUEUES)) {
                    #[cfg(test)]
                    partita_virtio::fake::crash::store();
                    used.fetch_add(1, Ordering::Release);
                }
            }
        }
    }

    fn break_disk(&mut self, client_id: usize, disk_id: usize, fault: Fault) {
        for queue_id in 0..MAX_QUEUES {
            self.clear_ready(client_id, disk_id, queue_id);
        }
        let Some(client) = self.client(client_id) else { return };
        let counters = client.counters(disk_id);
        if let Some(Some(disk)) = client.disks.get_mut(disk_id) {
            disk.end(State::Broken);
        }
        if let Some(counters) = counters {
            #[cfg(test)]
            partita_virtio::fake::crash::store();
            counters.needs_reset.store(1, Ordering::Release);
        }
        self.notify |= 1 << client_id;
        self.report.guest_fault(client_id, disk_id, fault);
    }

    /// Goes on with a queue of a disk that was live in an earlier life.
    pub(crate) fn resume(&mut self, client_id: usize, disk_id: usize, queue_id: usize) {
        let page = self.page;
        let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else { return };
        let mut again = 0u64;
        let used = match queue.resume(0) {
            Ok(()) => queue.next_used(),
            Err(fault) => return self.break_disk(client_id, disk_id, fault),
        };
        let mine = |owner: Owner| {
            let [client, disk, queue] = [owner.client, owner.disk, owner.queue].map(usize::from);
            (client, disk, queue) == (client_id, disk_id, queue_id)
        };
        for id in 0..MAX_FLIGHTS {
            match page.get(id) {
                // Position p is published if used.idx is after it.
                Entry::Finishing(owner, p)
                    if mine(owner) && used.wrapping_sub(p).wrapping_sub(1) < 0x8000 =>
                {
                    page.set(id, Entry::Free);
                    self.release_id(id);
                }
                Entry::Finishing(owner, _) | Entry::Taken(owner) if mine(owner) => {
                    page.set(id, Entry::Taken(owner));
                    again |= 1 << id;
                }
                _ => {}
            }
        }
        let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else { return };
        let mut result = queue.resume(again.count_ones() as u16);
        while again != 0 && result.is_ok() {
            let id = again.trailing_zeros() as usize;
            again &= again - 1;
            let Entry::Taken(owner) = page.get(id) else { continue };
            let Some(queue) = self.queue_mut(client_id, disk_id, queue_id) else { break };
            result = queue.chain_at(owner.head).and_then(|chain| {
                if let Begun::Answered { .. } = self.begin(client_id, disk_id, queue_id, chain, Some(id))? {
                    self.release_id(id);
                }
                Ok(())
            });
        }
        // An interrupt may have been lost with the earlier life.
        self.owe(client_id, disk_id, queue_id, true);
        if let Err(fault) = result {
            self.forget(client_id, disk_id);
            self.break_disk(client_id, disk_id, fault);
        }
    }
}

/// Status byte last, then the used element.
#[inline]
pub(crate) fn answer(queue: &mut Queue, head: u16, parsed: &Parsed, status: BlkStatus) -> Result<(), Fault> {
    queue.ram().write(parsed.status, &[status as u8])?;
    queue.push(head, parsed.used_len(status))
}
