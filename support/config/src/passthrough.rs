//! A device that a cell gets whole: its registers are mapped into the guest, its interrupts are forwarded.
//!
//! What the guest's device tree says about it is of no interest on target, and long: [`HostOnly`] keeps it out of the PDs'
//! stacks.

use heapless::Vec;
use partita_protocol::layout::{self, guest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Address, Size};

/// Devices of a cell.
pub const MAX_PASSTHROUGH: usize = 4;
/// Interrupts of a device.
pub const MAX_PASSTHROUGH_IRQS: usize = 4;

const _: () = assert!(
    layout::channel::VMM_PASSTHROUGH + MAX_PASSTHROUGH * MAX_PASSTHROUGH_IRQS <= layout::channel::CONSOLE
);

/// A passed-through device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Passthrough<'a> {
    /// Unique in the cell; the node in the guest's device tree is `<name>@<address>`.
    #[serde(borrow)]
    pub name: &'a str,
    /// First byte of its registers.
    pub address: Address,
    /// Their size.
    #[serde(default = "page")]
    pub size: Size,
    /// Where the guest finds them; without it at `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_address: Option<Address>,
    /// Its interrupts, in the order of the guest's device tree.
    #[serde(default)]
    pub irqs: Vec<PassthroughIrq, MAX_PASSTHROUGH_IRQS>,
    /// What the guest's device tree says about it; without it nothing.
    #[serde(default, borrow, skip_serializing_if = "HostOnly::is_none")]
    pub device_tree: HostOnly<DeviceTree<'a>>,
}

/// An interrupt of a passed-through device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PassthroughIrq {
    /// INTID of the GIC: 32 for the first shared interrupt.
    pub irq: u32,
    /// How it is signalled.
    #[serde(default)]
    pub trigger: Trigger,
    /// INTID in the guest; without it see [`crate::Cell::lines`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_irq: Option<u32>,
    /// Another device of the same cell has the same line.
    #[serde(default)]
    pub shared: bool,
}

/// How an interrupt is signalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// As long as the device wants something.
    #[default]
    Level,
    /// Once for each thing that happened.
    Edge,
}

/// The node in the guest's device tree beside `reg` and `interrupts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTree<'a> {
    /// `compatible`, the most specific first.
    #[serde(borrow)]
    pub compatible: Vec<&'a str, 4>,
    /// `clock-names`; each is a fixed clock.
    #[serde(default, borrow)]
    pub clocks: Vec<&'a str, 4>,
    /// Their frequency.
    #[serde(default = "clock")]
    pub clock_hz: u32,
    /// More properties.
    #[serde(default, borrow)]
    pub properties: Vec<Property<'a>, 8>,
}

/// A property: empty, one cell or a string.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Property<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: &'a str,
    /// Its value: a number of 32 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<u32>,
    /// Its value: a string.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub text: Option<&'a str>,
}

/// Something that only the host reads. On target it is skipped and takes no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOnly<T> {
    #[cfg(feature = "std")]
    value: Option<T>,
    #[cfg(not(feature = "std"))]
    nothing: core::marker::PhantomData<T>,
}

impl<T> Default for HostOnly<T> {
    fn default() -> Self {
        Self {
            #[cfg(feature = "std")]
            value: None,
            #[cfg(not(feature = "std"))]
            nothing: core::marker::PhantomData,
        }
    }
}

impl<T> HostOnly<T> {
    /// The value, on the host and if it is there.
    pub const fn get(&self) -> Option<&T> {
        #[cfg(feature = "std")]
        return self.value.as_ref();
        #[cfg(not(feature = "std"))]
        None
    }

    const fn is_none(&self) -> bool {
        self.get().is_none()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for HostOnly<T> {
    #[cfg(feature = "std")]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { value: Some(T::deserialize(deserializer)?) })
    }

    #[cfg(not(feature = "std"))]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer)?;
        Ok(Self::default())
    }
}

impl<T: Serialize> Serialize for HostOnly<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

/// A physical interrupt line as the VMM forwards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// INTID of the GIC.
    pub irq: u32,
    /// How it is signalled.
    pub trigger: Trigger,
    /// INTID in the guest.
    pub guest_irq: u32,
}

impl crate::Cell<'_> {
    /// The cell's forwarded interrupt lines, in the order of the VMM's interrupt ids; one that devices share is there once.
    /// A line without `guest_irq` gets [`guest::PASSTHROUGH_IRQ`] plus its place in this order.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        let all = || self.passthrough.iter().flat_map(|device| &device.irqs);
        let first_of_its_line =
            move |(n, irq): &(usize, &PassthroughIrq)| !all().take(*n).any(|other| other.irq == irq.irq);
        all().enumerate().filter(first_of_its_line).zip(guest::PASSTHROUGH_IRQ..).map(|((_, irq), own)| {
            Line { irq: irq.irq, trigger: irq.trigger, guest_irq: irq.guest_irq.unwrap_or(own) }
        })
    }
}

fn page() -> Size {
    Size(0x1000)
}

/// The PL011's usual one; device trees give it to devices whose clock nobody controls.
fn clock() -> u32 {
    24_000_000
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    /// What the target does with a key that only the host reads.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Skipping {
        before: u32,
        skipped: serde::de::IgnoredAny,
        after: u32,
    }

    #[test]
    fn the_targets_parser_skips_any_value() {
        for value in [
            r#"{ "compatible": ["arm,pl011", "a, ]}"], "properties": [{ "name": "x", "cell": 2 }, {}] }"#,
            "{}",
            "[]",
            "7",
            r#""a""#,
        ] {
            let text = format!(r#"{{ "before": 1, "skipped": {value} , "after": 2 }}"#);
            let (read, used) = serde_json_core::from_slice::<Skipping>(text.as_bytes()).unwrap();
            assert_eq!((read.before, read.after, used), (1, 2, text.len()), "{value}");
        }
    }
}
