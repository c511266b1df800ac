//! Features and configuration space (5.2.3, 5.2.4), driver's side.

use bitflags::bitflags;
pub use partita_virtio::blk::kind;
use partita_virtio::blk::{SECTOR, feature};
use partita_virtio::features;
use virtio_drivers::transport::Transport;

use super::SetupError;
use crate::device::{Properties, RangeLimits, Topology};

bitflags! {
    /// What the driver understands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Feature: u64 {
        const SIZE_MAX = feature::SIZE_MAX;
        const SEG_MAX = feature::SEG_MAX;
        const RO = feature::RO;
        const BLK_SIZE = feature::BLK_SIZE;
        const FLUSH = feature::FLUSH;
        const TOPOLOGY = feature::TOPOLOGY;
        const DISCARD = feature::DISCARD;
        const WRITE_ZEROES = feature::WRITE_ZEROES;
        const INDIRECT_DESC = features::INDIRECT_DESC;
        const EVENT_IDX = features::EVENT_IDX;
        const VERSION_1 = features::VERSION_1;
    }
}

/// Offsets in configuration space.
mod at {
    pub const CAPACITY: usize = 0;
    pub const SIZE_MAX: usize = 8;
    pub const SEG_MAX: usize = 12;
    pub const BLK_SIZE: usize = 20;
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    pub const ALIGNMENT_OFFSET: usize = 25;
    pub const MIN_IO: usize = 26;
    pub const OPT_IO: usize = 28;
    pub const MAX_DISCARD_SECTORS: usize = 36;
    pub const MAX_DISCARD_SEG: usize = 40;
    pub const DISCARD_ALIGNMENT: usize = 44;
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
}

/// Reads what the negotiated features say is there. Depth and our own limits are left to the caller.
pub fn read(transport: &impl Transport, features: Feature) -> Result<Properties, SetupError> {
    // The generation makes the two halves of the capacity belong together; bounded, unlike `read_consistent`.
    let mut sectors = None;
    for _ in 0..16 {
        let generation = transport.read_config_generation();
        let (low, high) = (word(transport, at::CAPACITY)?, word(transport, at::CAPACITY + 4)?);
        if transport.read_config_generation() == generation {
            sectors = Some(u64::from(low) | u64::from(high) << 32);
            break;
        }
    }
    let sectors = sectors.ok_or(SetupError::Config)?;
    let optional = |feature, offset, otherwise| {
        if features.contains(feature) { word(transport, offset) } else { Ok(otherwise) }
    };
    let block_size = optional(Feature::BLK_SIZE, at::BLK_SIZE, SECTOR as u32)?;
    // Without SEG_MAX nothing is promised beyond one segment (5.2.5).
    let seg_max = optional(Feature::SEG_MAX, at::SEG_MAX, 1)?.max(1);
    let size_max = optional(Feature::SIZE_MAX, at::SIZE_MAX, u32::MAX)?;
    if !block_size.is_power_of_two() || block_size < SECTOR as u32 || size_max == 0 {
        return Err(SetupError::Config);
    }
    let topology = match features.contains(Feature::TOPOLOGY) {
        false => None,
        true => Some(Topology {
            physical_block_exp: read_at(transport, at::PHYSICAL_BLOCK_EXP)?,
            alignment_offset: read_at(transport, at::ALIGNMENT_OFFSET)?,
            min_io: u16::from_le(read_at(transport, at::MIN_IO)?),
            opt_io: word(transport, at::OPT_IO)?,
        }),
    };
    let mut discard =
        range(transport, features.contains(Feature::DISCARD), at::MAX_DISCARD_SECTORS, at::MAX_DISCARD_SEG)?;
    if let Some(limits) = &mut discard {
        limits.alignment = word(transport, at::DISCARD_ALIGNMENT)?;
    }
    let mut write_zeroes = range(
        transport,
        features.contains(Feature::WRITE_ZEROES),
        at::MAX_WRITE_ZEROES_SECTORS,
        at::MAX_WRITE_ZEROES_SEG,
    )?;
    if let Some(limits) = &mut write_zeroes {
        limits.may_unmap = read_at::<u8>(transport, at::WRITE_ZEROES_MAY_UNMAP)? != 0;
    }
    Ok(Properties {
        sectors,
        block_size,
        read_only: features.contains(Feature::RO),
        flush: features.contains(Feature::FLUSH),
        depth: 0,
        seg_max,
        size_max,
        topology,
        discard,
        write_zeroes,
    })
}

/// Limits of a ranged command, if the device offers it and takes at least one range.
fn range(
    transport: &impl Transport,
    offered: bool,
    sectors: usize,
    ranges: usize,
) -> Result<Option<RangeLimits>, SetupError> {
    if !offered {
        return Ok(None);
    }
    let (max_sectors, max_ranges) = (word(transport, sectors)?, word(transport, ranges)?);
    if max_sectors == 0 || max_ranges == 0 {
        return Ok(None);
    }
    Ok(Some(RangeLimits { max_sectors, alignment: 1, may_unmap: false }))
}

fn word(transport: &impl Transport, offset: usize) -> Result<u32, SetupError> {
    read_at(transport, offset).map(u32::from_le)
}

fn read_at<V: zerocopy::FromBytes + zerocopy::IntoBytes>(
    transport: &impl Transport,
    offset: usize,
) -> Result<V, SetupError> {
    transport.read_config_space(offset).map_err(|_| SetupError::Config)
}
