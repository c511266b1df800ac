//! The tag of a message: what it is about and how much of it there is.

use crate::Word;

/// Tag of a message: `length` in bits 6:0, `extra_caps` in 8:7, `caps_unwrapped` in 11:9, `label` above.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct MessageInfo(Word);

impl MessageInfo {
    /// From its parts, each cut to the bits it has.
    pub fn new(label: Word, caps_unwrapped: usize, extra_caps: usize, length: usize) -> Self {
        let (unwrapped, extra, length) = (caps_unwrapped as Word, extra_caps as Word, length as Word);
        Self(label << 12 | (unwrapped & 7) << 9 | (extra & 3) << 7 | length & 0x7f)
    }

    /// What the message is about.
    pub fn label(&self) -> Word {
        self.0 >> 12
    }

    /// Bits of a label.
    pub const fn label_width() -> usize {
        52
    }

    /// Bit map of the capabilities that arrived as badges.
    pub fn caps_unwrapped(&self) -> usize {
        (self.0 >> 9 & 7) as usize
    }

    /// Number of capabilities sent along.
    pub fn extra_caps(&self) -> usize {
        (self.0 >> 7 & 3) as usize
    }

    /// Number of message registers.
    pub fn length(&self) -> usize {
        (self.0 & 0x7f) as usize
    }

    #[doc(hidden)]
    pub const fn from_bits(bits: Word) -> Self {
        Self(bits)
    }

    #[doc(hidden)]
    pub const fn bits(&self) -> Word {
        self.0
    }
}

impl From<MessageInfoBuilder> for MessageInfo {
    fn from(builder: MessageInfoBuilder) -> Self {
        builder.build()
    }
}

/// Builds a [`MessageInfo`] from the parts that are not zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageInfoBuilder {
    label: Word,
    caps_unwrapped: usize,
    extra_caps: usize,
    length: usize,
}

impl MessageInfoBuilder {
    /// The tag.
    pub fn build(self) -> MessageInfo {
        MessageInfo::new(self.label, self.caps_unwrapped, self.extra_caps, self.length)
    }

    /// Sets the label.
    pub fn label(mut self, label: Word) -> Self {
        self.label = label;
        self
    }

    /// Sets the map of unwrapped capabilities.
    pub fn caps_unwrapped(mut self, caps_unwrapped: usize) -> Self {
        self.caps_unwrapped = caps_unwrapped;
        self
    }

    /// Sets the number of capabilities.
    pub fn extra_caps(mut self, extra_caps: usize) -> Self {
        self.extra_caps = extra_caps;
        self
    }

    /// Sets the number of message registers.
    pub fn length(mut self, length: usize) -> Self {
        self.length = length;
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::MessageInfo;

    proptest! {
        #[test]
        fn parts_come_back(label in 0u64..1 << 52, unwrapped in 0usize..8, extra in 0usize..4, length in 0usize..128) {
            let info = MessageInfo::new(label, unwrapped, extra, length);
            prop_assert_eq!(info.label(), label);
            prop_assert_eq!(info.caps_unwrapped(), unwrapped);
            prop_assert_eq!(info.extra_caps(), extra);
            prop_assert_eq!(info.length(), length);
        }
    }
}
