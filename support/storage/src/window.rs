//! The part of a device that a guest's disk is.

/// Sectors `first .. first + count` of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    first: u64,
    count: u64,
}

impl Window {
    /// No sectors.
    pub const NONE: Self = Self { first: 0, count: 0 };

    /// `None` if it is empty or not all of it is below `device_sectors`.
    pub const fn new(first: u64, count: u64, device_sectors: u64) -> Option<Self> {
        match first.checked_add(count) {
            Some(end) if count > 0 && end <= device_sectors => Some(Self { first, count }),
            _ => None,
        }
    }

    /// First sector of the device.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Sectors.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Sector of the device for `sector` of the guest's disk, if all `sectors` from there (at least one) are inside.
    pub const fn map(&self, sector: u64, sectors: u64) -> Option<u64> {
        if sectors == 0 || sector >= self.count || sectors > self.count - sector {
            return None;
        }
        // No overflow: `new` checked first + count.
        Some(self.first + sector)
    }

    /// Some sector is in both.
    pub const fn overlaps(&self, other: &Window) -> bool {
        self.first < other.first + other.count && other.first < self.first + self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        assert!(Window::new(0, 0, 10).is_none());
        assert!(Window::new(5, 6, 10).is_none());
        assert!(Window::new(u64::MAX, 2, u64::MAX).is_none());
        let window = Window::new(2, 8, 10).unwrap();
        assert_eq!(window.map(0, 8), Some(2));
        assert_eq!(window.map(7, 1), Some(9));
        assert_eq!(window.map(7, 2), None);
        assert_eq!(window.map(8, 1), None);
        assert_eq!(window.map(0, 0), None);
        assert_eq!(window.map(1, u64::MAX), None);
        assert_eq!(window.map(u64::MAX, 1), None);
        assert!(window.overlaps(&Window::new(9, 1, 10).unwrap()));
        assert!(!window.overlaps(&Window::new(0, 2, 10).unwrap()));
    }

    proptest! {
        #[test]
        fn never_outside(first: u64, count: u64, device: u64, sector: u64, sectors: u64) {
            if let Some(window) = Window::new(first, count, device)
                && let Some(at) = window.map(sector, sectors)
            {
                let end = u128::from(at) + u128::from(sectors);
                prop_assert!(at >= first && end <= u128::from(first) + u128::from(count));
                prop_assert!(end <= u128::from(device));
                prop_assert_eq!(at - first, sector);
            }
        }
    }
}
