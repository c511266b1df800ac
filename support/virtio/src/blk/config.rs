//! Configuration space (5.2.4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// virtio_blk_config up to the write-zeroes fields. All fields little endian; [`BlkConfig::to_le`] makes them so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct BlkConfig {
    /// Sectors of 512 bytes.
    pub capacity: u64,
    /// Bytes of the largest segment.
    pub size_max: u32,
    /// Segments of a request.
    pub seg_max: u32,
    /// Cylinders, heads, sectors: not offered.
    pub geometry: [u8; 4],
    /// Logical block size.
    pub blk_size: u32,
    /// Logical blocks per physical block (log2).
    pub physical_block_exp: u8,
    /// Offset of the first aligned logical block.
    pub alignment_offset: u8,
    /// Suggested minimum I/O size in blocks.
    pub min_io_size: u16,
    /// Suggested optimal I/O size in blocks.
    pub opt_io_size: u32,
    /// Write-back cache: not offered.
    pub writeback: u8,
    /// Unused.
    pub unused0: u8,
    /// Queues (MQ).
    pub num_queues: u16,
    /// Sectors of the largest discard.
    pub max_discard_sectors: u32,
    /// Ranges of a discard request.
    pub max_discard_seg: u32,
    /// Alignment of discards in sectors.
    pub discard_sector_alignment: u32,
    /// Sectors of the largest write-zeroes.
    pub max_write_zeroes_sectors: u32,
    /// Ranges of a write-zeroes request.
    pub max_write_zeroes_seg: u32,
    /// Write-zeroes may deallocate.
    pub write_zeroes_may_unmap: u8,
    /// Unused.
    pub unused1: [u8; 3],
}

const _: () = assert!(size_of::<BlkConfig>() == 60);

impl BlkConfig {
    /// As the guest must see it.
    pub const fn to_le(self) -> Self {
        Self {
            capacity: self.capacity.to_le(),
            size_max: self.size_max.to_le(),
            seg_max: self.seg_max.to_le(),
            blk_size: self.blk_size.to_le(),
            min_io_size: self.min_io_size.to_le(),
            opt_io_size: self.opt_io_size.to_le(),
            num_queues: self.num_queues.to_le(),
            max_discard_sectors: self.max_discard_sectors.to_le(),
            max_discard_seg: self.max_discard_seg.to_le(),
            discard_sector_alignment: self.discard_sector_alignment.to_le(),
            max_write_zeroes_sectors: self.max_write_zeroes_sectors.to_le(),
            max_write_zeroes_seg: self.max_write_zeroes_seg.to_le(),
            ..self
        }
    }
}
