//! What the start of a guest costs that seL4 neither inflates nor makes room for: its kernel and initramfs are beside the
//! image (`boot_files`) and its RAM is memory that is not seL4's (`memory_address`). The start of the ordinary system is the
//! first figure of the disk's table; the floor is held against this one, as no system of seL4's own memory can reach it
//! (docs/performance.md, "Where the boot goes").

use std::fmt;

use serde_json::{Map, Value, json};

use super::{
    Lab, Scratch, bare, counting, counting_pds, describe, described, drive, guest, kernel, keyed,
    marks::{self, Counters},
    measure, table,
};
use crate::{build, fail, failure::Result, qemu::Machine};

/// Name of the part, and of the choice.
pub const NAME: &str = "boot";

/// The boot ends at the first mark.
const SCRIPT: &str = "#!/bin/bash\n# Written by `partita bench`.\n/root/mark\n";

/// From QEMU's start to the guest's script.
struct Boot {
    ours: Counters,
    bare: Counters,
}

impl Boot {
    fn times_bare(&self) -> f64 {
        self.ours.all() as f64 / self.bare.all() as f64
    }

    fn misses(&self) -> bool {
        self.times_bare() > table::BOOT_LIMIT
    }

    fn json(&self) -> Value {
        json!({
            "ours": self.ours.all(),
            "bare": self.bare.all(),
            "kernel_instructions": self.ours.kernel,
            "pd_instructions": self.ours.pd,
            "times_bare": table::thousandths(self.times_bare()),
            "floor_times_bare": table::BOOT_LIMIT,
            "misses": self.misses(),
        })
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let million = |count: u64| count as f64 / 1e6;
        writeln!(
            f,
            "boot with boot_files and memory_address, to the guest's init: {:.0} million instructions ({:.0} of seL4 and \
             loader, {:.0} of PDs), on bare QEMU {:.0}: {:.2} times (at most {}){}",
            million(self.ours.all()),
            million(self.ours.kernel),
            million(self.ours.pd),
            million(self.bare.all()),
            self.times_bare(),
            table::BOOT_LIMIT,
            if self.misses() { "  misses" } else { "" }
        )
    }
}

impl Lab<'_> {
    /// Measures and prints it.
    pub(super) fn boot(&self) -> Result<Map<String, Value>> {
        // That of the disk's table, with its files and its RAM where seL4 does nothing about them.
        let text =
            describe(self.context, r#""boot_files": "0xc0000000","#, r#""memory_address": "0x40000000","#);
        let description = described(self.context, self.out, "bench-boot", &text)?;
        let built = build::build(&description)?;
        let original = self.context.guest_dir().join("disk.img");
        let count = |what: &str, ours: bool| -> Result<Counters> {
            let disk = Scratch::new(self.out);
            let (root, scratch) = guest::prepare(&original, &disk.0, self.out, [Some(SCRIPT), None])?;
            let to = self.out.join(if ours { "boot-ours" } else { "boot-bare" });
            let text = if ours {
                let mut machine = Machine::new(&description, &built, None)?;
                machine.arguments.extend(drive(&disk.0, None, 0));
                let counting = counting_pds(&built, self.choice, self.plugin, &to);
                measure(what, &mut machine.command(), &counting, &to)?
            } else {
                let mut command = bare(self.context);
                command.args(drive(&disk.0, Some(root), 0)).args(drive(&disk.0, Some(scratch), 1));
                measure(what, &mut command, &counting(self.plugin, &to), &to)?
            };
            first(&text)
        };
        let boot = Boot {
            ours: count("the boot with boot files", true)?,
            bare: count("the boot of bare QEMU", false)?,
        };
        print!("{boot}");
        Ok(keyed([("kernel", kernel(&built).into()), ("boot_beside", boot.json())]))
    }
}

/// What had run at the first mark.
fn first(text: &str) -> Result<Counters> {
    match <[Counters; 2]>::try_from(marks::counters(text)?) {
        Ok([boot, _]) if boot.guest > 0 => Ok(boot),
        Ok(_) => fail!("no instruction of a guest was counted"),
        Err(marks) => fail!("the guest made {} marks instead of 2", marks.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_marks_counts() {
        let columns = "# kernel guest_kernel guest_user pd exits pd_entries\n";
        let boot = first(&format!("{columns}5 100 10 7 1 1\n9 200 20 8 1 1\n")).unwrap();
        assert_eq!((boot.kernel, boot.pd, boot.all()), (5, 7, 122));
        assert!(first(&format!("{columns}5 100 10 7 1 1\n")).is_err());
        assert!(first(&format!("{columns}5 0 0 7 1 1\n9 0 0 8 1 1\n")).is_err());
    }

    #[test]
    fn what_is_above_the_floor_is_marked() {
        let counters = |guest| Counters { guest, ..Counters::default() };
        let boot = |ours| Boot { ours: counters(ours), bare: counters(1_000_000_000) };
        assert!(!boot(1_299_000_000).misses() && boot(1_301_000_000).misses());
        assert!(boot(1_400_000_000).to_string().ends_with("1000: 1.40 times (at most 1.3)  misses\n"));
        assert_eq!(boot(1_250_000_000).json()["times_bare"], json!(1.25));
    }
}
