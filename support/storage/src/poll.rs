//! Reading a device and waiting for it, before anybody else uses it: for partition tables.

use partita_virtio::memory::GuestRam;

use crate::device::{BlockDevice, Command, Outcome, Request, SECTOR, Segment};
use crate::partition::{ReadSectors, TableError};

/// Reads through a piece of DMA memory.
pub struct PollReader<'a, D, W> {
    device: &'a mut D,
    scratch: GuestRam,
    wait: W,
}

impl<'a, D: BlockDevice, W: FnMut() -> bool> PollReader<'a, D, W> {
    /// `scratch`: memory that the device can write and nobody else uses. `wait` is called between looks at the device and
    /// says whether to go on waiting.
    pub fn new(device: &'a mut D, scratch: GuestRam, wait: W) -> Self {
        Self { device, scratch, wait }
    }

    fn read_part(&mut self, sector: u64, into: &mut [u8]) -> Result<(), TableError> {
        let len = u32::try_from(into.len()).map_err(|_| TableError::Read)?;
        let segment = Segment { paddr: self.scratch.paddr(), len };
        let sectors = len / SECTOR as u32;
        let request = Request { id: 0, command: Command::Read, sector, sectors, segments: &[segment] };
        self.device.submit(&request).map_err(|_| TableError::Read)?;
        self.device.kick();
        loop {
            // The interrupt is not needed here, but must not stay raised.
            self.device.acknowledge();
            if let Some(completion) = self.device.complete() {
                return match completion.outcome {
                    Outcome::Done => {
                        self.scratch.read(self.scratch.ipa(), into).map_err(|_| TableError::Read)
                    }
                    _ => Err(TableError::Read),
                };
            }
            if !(self.wait)() {
                // It must not come later, into memory that others use by then.
                if self.device.restart(!0).is_err() {
                    self.device.give_up();
                }
                while self.device.complete().is_some() {}
                return Err(TableError::Read);
            }
        }
    }
}

impl<D: BlockDevice, W: FnMut() -> bool> ReadSectors for PollReader<'_, D, W> {
    fn read(&mut self, mut sector: u64, into: &mut [u8]) -> Result<(), TableError> {
        let most = (self.scratch.size() / SECTOR * SECTOR).min(1 << 20) as usize;
        if most == 0 || !into.len().is_multiple_of(SECTOR as usize) {
            return Err(TableError::Read);
        }
        for part in into.chunks_mut(most) {
            self.read_part(sector, part)?;
            sector += part.len() as u64 / SECTOR;
        }
        Ok(())
    }

    fn sectors(&self) -> u64 {
        self.device.properties().sectors
    }

    fn block_size(&self) -> u32 {
        self.device.properties().block_size
    }
}
