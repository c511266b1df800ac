//! What the kernel tells the initial thread.

use core::ops::{Deref, Range};

use crate::{IpcBuffer, Word};

/// A range of slots in the initial thread's capability space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlotRegion {
    start: Word,
    end: Word,
}

impl SlotRegion {
    /// Its slots.
    pub const fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// First slot.
    pub const fn start(&self) -> usize {
        self.start as usize
    }

    /// Slot after the last.
    pub const fn end(&self) -> usize {
        self.end as usize
    }
}

/// The kernel's boot information page, as far as a static system needs it: libsel4's `seL4_BootInfo` without the list of
/// untyped memory.
#[derive(Debug)]
#[repr(C)]
pub struct BootInfo {
    extra_len: Word,
    node_id: Word,
    num_nodes: Word,
    num_iopt_levels: Word,
    ipc_buffer: *mut IpcBuffer,
    empty: SlotRegion,
    shared_frames: SlotRegion,
    user_image_frames: SlotRegion,
    user_image_paging: SlotRegion,
    io_space_caps: SlotRegion,
    extra_bi_pages: SlotRegion,
    init_thread_cnode_size_bits: Word,
    init_thread_domain: Word,
    sched_control: SlotRegion,
    untyped: SlotRegion,
}

impl BootInfo {
    /// Boot information of a thread that has none: nothing but where its IPC buffer is.
    #[doc(hidden)]
    pub const fn with_ipc_buffer(ipc_buffer: *mut IpcBuffer) -> Self {
        const NONE: SlotRegion = SlotRegion { start: 0, end: 0 };
        Self {
            extra_len: 0,
            node_id: 0,
            num_nodes: 1,
            num_iopt_levels: 0,
            ipc_buffer,
            empty: NONE,
            shared_frames: NONE,
            user_image_frames: NONE,
            user_image_paging: NONE,
            io_space_caps: NONE,
            extra_bi_pages: NONE,
            init_thread_cnode_size_bits: 0,
            init_thread_domain: 0,
            sched_control: NONE,
            untyped: NONE,
        }
    }

    /// Where the initial thread's IPC buffer is.
    pub fn ipc_buffer(&self) -> *mut IpcBuffer {
        self.ipc_buffer
    }

    /// Slots that are free.
    pub fn empty(&self) -> SlotRegion {
        self.empty
    }

    /// Frames of the initial thread's image.
    pub fn user_image_frames(&self) -> SlotRegion {
        self.user_image_frames
    }

    /// Scheduling controls, one a processor.
    pub fn sched_control(&self) -> SlotRegion {
        self.sched_control
    }

    /// Untyped memory.
    pub fn untyped(&self) -> SlotRegion {
        self.untyped
    }
}

/// Reference to the boot information.
#[derive(Debug)]
#[repr(transparent)]
pub struct BootInfoPtr {
    ptr: *const BootInfo,
}

impl BootInfoPtr {
    /// From the address the initial thread was started with.
    ///
    /// # Safety
    /// `ptr` must point to boot information that nobody changes from now on.
    pub unsafe fn new(ptr: *const BootInfo) -> Self {
        Self { ptr }
    }

    /// The address.
    pub fn ptr(&self) -> *const BootInfo {
        self.ptr
    }
}

impl Deref for BootInfoPtr {
    type Target = BootInfo;

    fn deref(&self) -> &BootInfo {
        // SAFETY: the creator of this value promised that the boot information is there and constant.
        unsafe { &*self.ptr }
    }
}
