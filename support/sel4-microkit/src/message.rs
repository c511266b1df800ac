//! Messages of protected calls and faults.

/// What a message is about.
pub type MessageLabel = sel4::Word;

/// One word of a message.
pub type MessageRegisterValue = sel4::Word;

/// Tag of a message: label and number of message registers.
#[derive(Debug, Clone)]
pub struct MessageInfo {
    inner: sel4::MessageInfo,
}

impl MessageInfo {
    /// A tag.
    pub fn new(label: MessageLabel, count: usize) -> Self {
        Self::from_inner(sel4::MessageInfo::new(label, 0, 0, count))
    }

    #[doc(hidden)]
    pub fn from_inner(inner: sel4::MessageInfo) -> Self {
        Self { inner }
    }

    #[doc(hidden)]
    pub fn inner(&self) -> &sel4::MessageInfo {
        &self.inner
    }

    #[doc(hidden)]
    pub fn into_inner(self) -> sel4::MessageInfo {
        self.inner
    }

    /// What the message is about.
    pub fn label(&self) -> MessageLabel {
        self.inner.label()
    }

    /// Bits of a label.
    pub const fn label_width() -> usize {
        sel4::MessageInfo::label_width()
    }

    /// Number of message registers.
    pub fn count(&self) -> usize {
        self.inner.length()
    }

    /// Reads the message as a fault.
    pub fn fault(&self) -> sel4::Fault {
        sel4::with_ipc_buffer(|buffer| sel4::Fault::new(buffer, &self.inner))
    }
}

impl Default for MessageInfo {
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// Runs `f` with the message registers.
pub fn with_msg_regs<T>(f: impl FnOnce(&[MessageRegisterValue]) -> T) -> T {
    sel4::with_ipc_buffer(|buffer| f(buffer.msg_regs()))
}

/// Runs `f` with the message registers.
pub fn with_msg_regs_mut<T>(f: impl FnOnce(&mut [MessageRegisterValue]) -> T) -> T {
    sel4::with_ipc_buffer_mut(|buffer| f(buffer.msg_regs_mut()))
}

/// Runs `f` with the message registers as bytes.
pub fn with_msg_bytes<T>(f: impl FnOnce(&[u8]) -> T) -> T {
    sel4::with_ipc_buffer(|buffer| f(buffer.msg_bytes()))
}

/// Runs `f` with the message registers as bytes.
pub fn with_msg_bytes_mut<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    sel4::with_ipc_buffer_mut(|buffer| f(buffer.msg_bytes_mut()))
}

/// Sets message register `i`.
///
/// # Panics
/// If `i` is not below 120.
pub fn set_mr(i: usize, value: MessageRegisterValue) {
    with_msg_regs_mut(|regs| regs[i] = value)
}

/// Message register `i`.
///
/// # Panics
/// If `i` is not below 120.
pub fn get_mr(i: usize) -> MessageRegisterValue {
    with_msg_regs(|regs| regs[i])
}
