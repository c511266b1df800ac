//! The page sets of a link: what one side writes and the other reads.
//!
//! A page set is a header page and some pages of data. The header holds the indices of *its writer*: how far it has
//! produced into its own data, how far it has consumed of the other's, and for each of the two the point at which it wants
//! to be notified. Indices count bytes from the birth of the link and never start again, so that a full ring and an empty
//! one differ, and so that an index found after a restart is as good as before.

use crate::sync::{AtomicU64, Ordering};
#[cfg(not(loom))]
use core::ptr::NonNull;
#[cfg(not(loom))]
use partita_protocol::layout::size::PAGE;

/// What the writer of a page set says about both directions. Producer and consumer words are on cache lines of their own.
#[cfg_attr(not(loom), repr(C, align(64)))]
pub struct Header {
    /// Bytes put into this page set's data.
    pub(crate) produced: AtomicU64,
    /// Notify the writer (as a producer) when the other side's `consumed` goes beyond this.
    pub(crate) space_event: AtomicU64,
    _rest: Rest,
    /// Bytes taken out of the other page set's data.
    pub(crate) consumed: AtomicU64,
    /// Notify the writer (as a consumer) when the other side's `produced` goes beyond this.
    pub(crate) data_event: AtomicU64,
    _rest2: Rest,
}

/// The rest of a cache line. Atomics, as the peer may write anything there and nothing about it may be assumed.
#[cfg(not(loom))]
type Rest = [AtomicU64; 6];
#[cfg(loom)]
type Rest = ();

impl Header {
    /// A link that was never used. On target that is what zeroed memory holds; tests build it.
    pub fn new() -> Self {
        Header {
            produced: AtomicU64::new(0),
            space_event: AtomicU64::new(0),
            _rest: Rest::default(),
            consumed: AtomicU64::new(0),
            data_event: AtomicU64::new(0),
            _rest2: Rest::default(),
        }
    }
}

impl Default for Header {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Header>() <= PAGE && core::mem::offset_of!(Header, consumed) == 64);

/// The page set that this side writes.
#[derive(Clone, Copy)]
pub struct Mine<'a> {
    pub(crate) header: &'a Header,
    pub(crate) data: &'a [AtomicU64],
}

/// The page set that the peer writes and this side only reads.
#[derive(Clone, Copy)]
pub struct Yours<'a> {
    pub(crate) header: &'a Header,
    pub(crate) data: &'a [AtomicU64],
}

/// Splits a region into header and data.
///
/// # Safety
/// As [`Mine::at`].
#[cfg(not(loom))]
unsafe fn split<'a>(region: NonNull<u8>, size: usize) -> (&'a Header, &'a [AtomicU64]) {
    let words = size.saturating_sub(PAGE) / size_of::<AtomicU64>();
    // SAFETY: the caller promises `size` bytes of mapped memory, page aligned, of which the header takes less than the
    // first page and `words` the rest. Both types are atomics throughout, so that changes by the peer are
    // not data races, and every bit pattern is valid for them.
    unsafe {
        let header = region.cast::<Header>().as_ref();
        let data = match words {
            0 => &[],
            _ => core::slice::from_raw_parts(region.as_ptr().add(PAGE).cast::<AtomicU64>(), words),
        };
        (header, data)
    }
}

impl<'a> Mine<'a> {
    /// From parts: for tests and for memory that is laid out otherwise. `data` is the ring's capacity, in words.
    pub fn new(header: &'a Header, data: &'a [AtomicU64]) -> Self {
        Mine { header, data }
    }

    /// Begins anew: both indices at zero, asking to be told of the first byte. For links whose two sides agree by other
    /// means that an old stream is over; both do it before either attaches.
    pub fn reset(&self) {
        let header = self.header;
        for word in [&header.space_event, &header.data_event, &header.produced, &header.consumed] {
            word.store(0, Ordering::Release);
        }
    }

    /// The region of `size` bytes at `region`: one header page, the rest data.
    ///
    /// # Safety
    /// `size` (at least one page) bytes at `region` are page aligned, mapped readable and writable for `'a`, and accessed
    /// by nothing else in this PD but at most one [`crate::Duplex`] at a time.
    #[cfg(not(loom))]
    pub unsafe fn at(region: NonNull<u8>, size: usize) -> Self {
        // SAFETY: the same promise.
        let (header, data) = unsafe { split(region, size) };
        Mine { header, data }
    }
}

impl<'a> Yours<'a> {
    /// From parts; see [`Mine::new`].
    pub fn new(header: &'a Header, data: &'a [AtomicU64]) -> Self {
        Yours { header, data }
    }

    /// The region of `size` bytes at `region`: one header page, the rest data.
    ///
    /// # Safety
    /// `size` (at least one page) bytes at `region` are page aligned and mapped readable for `'a`. The peer may write
    /// anything there at any time.
    #[cfg(not(loom))]
    pub unsafe fn at(region: NonNull<u8>, size: usize) -> Self {
        // SAFETY: the same promise; nothing in this crate stores through a `Yours`.
        let (header, data) = unsafe { split(region, size) };
        Yours { header, data }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[repr(C, align(4096))]
    struct Region([u8; 3 * PAGE]);

    #[test]
    fn a_region_is_one_header_page_and_the_rest_data() {
        let mut region = Region([0; 3 * PAGE]);
        let base = NonNull::from(&mut region).cast::<u8>();
        // SAFETY: `region` is aligned, lives to the end of the test and is used through `base` only.
        let mine = unsafe { Mine::at(base, 3 * PAGE) };
        assert_eq!(mine.data.len(), 2 * PAGE / 8);
        assert_eq!(core::ptr::from_ref(mine.header) as usize, base.addr().get());
        assert_eq!(mine.data.as_ptr() as usize, base.addr().get() + PAGE);
        // SAFETY: as above.
        let header_only = unsafe { Yours::at(base, PAGE) };
        assert!(header_only.data.is_empty());
    }
}
