//! What a disk offers its guest: never more than the device below can do.

use partita_storage::device::{Properties, SECTOR};
use partita_virtio::blk::config::BlkConfig;
use partita_virtio::blk::feature;
use partita_virtio::features;

use crate::{DiskConfig, SEG_MAX};

/// Segments of one request.
pub fn seg_max(below: &Properties) -> u32 {
    below.seg_max.min(SEG_MAX as u32)
}

/// Device features.
pub fn features(below: &Properties, disk: &DiskConfig) -> u64 {
    let mut offer = features::VERSION_1
        | features::INDIRECT_DESC
        | features::EVENT_IDX
        | feature::SEG_MAX
        | feature::BLK_SIZE;
    let writable = !is_read_only(below, disk);
    for (possible, bit) in [
        (!writable, feature::RO),
        (below.flush, feature::FLUSH),
        (below.size_max != u32::MAX, feature::SIZE_MAX),
        (below.topology.is_some(), feature::TOPOLOGY),
        (writable && below.discard.is_some(), feature::DISCARD),
        (writable && below.write_zeroes.is_some(), feature::WRITE_ZEROES),
        (disk.queues > 1, feature::MQ),
    ] {
        if possible {
            offer |= bit;
        }
    }
    offer
}

/// Configuration space.
pub fn config(below: &Properties, disk: &DiskConfig) -> BlkConfig {
    let mut config = BlkConfig {
        capacity: disk.window.count(),
        seg_max: seg_max(below),
        blk_size: below.block_size,
        num_queues: disk.queues as u16,
        ..BlkConfig::default()
    };
    if below.size_max != u32::MAX {
        config.size_max = below.size_max;
    }
    if let Some(topology) = below.topology {
        config.physical_block_exp = topology.physical_block_exp;
        config.min_io_size = topology.min_io;
        config.opt_io_size = topology.opt_io;
        config.alignment_offset = alignment_offset(below, disk, topology);
    }
    if let Some(limits) = below.discard {
        config.max_discard_sectors = limits.max_sectors;
        config.max_discard_seg = 1;
        config.discard_sector_alignment = limits.alignment;
    }
    if let Some(limits) = below.write_zeroes {
        config.max_write_zeroes_sectors = limits.max_sectors;
        config.max_write_zeroes_seg = 1;
        config.write_zeroes_may_unmap = limits.may_unmap.into();
    }
    config.to_le()
}

/// Writes are refused, by configuration or by the device.
pub const fn is_read_only(below: &Properties, disk: &DiskConfig) -> bool {
    below.read_only || disk.read_only
}

/// Blocks of the window before the first one that begins a physical block of the device.
fn alignment_offset(
    below: &Properties,
    disk: &DiskConfig,
    topology: partita_storage::device::Topology,
) -> u8 {
    let physical = 1u64.checked_shl(topology.physical_block_exp.into()).unwrap_or(1);
    let first = disk.window.first() / (u64::from(below.block_size) / SECTOR).max(1);
    let ahead = (u64::from(topology.alignment_offset) + physical - first % physical) % physical;
    u8::try_from(ahead).unwrap_or(0)
}
