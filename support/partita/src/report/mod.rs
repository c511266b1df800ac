//! `partita report`: what each protection domain may touch, read from system.xml alone.
//!
//! Nothing of what the generator meant enters here: a reader of the table sees what Microkit will enforce. Rule 1 of
//! docs/architecture.md is one writer per page; every region with more writers is listed with what it is.

mod read;
mod table;

use crate::{
    context::Context,
    failure::{Failure, Result},
    system,
};

/// Prints the report for the description.
///
/// # Errors
/// The description is wrong.
pub fn run(context: &Context) -> Result {
    let text = context.read_description()?;
    let xml = system::generate(&context.parse(&text)?, context.board)?;
    print!("{}", write(&xml)?);
    Ok(())
}

/// The report about a system.xml.
///
/// # Errors
/// It is no system description.
pub fn write(xml: &str) -> Result<String> {
    let system = read::read(xml).map_err(|why| Failure::new(format!("system.xml: {why}")))?;
    Ok(table::write(&system))
}

#[cfg(test)]
mod tests {
    use super::write;

    const SMALL: &str = r#"<system>
        <memory_region name="one" size="0x1000" />
        <memory_region name="two" size="0x2000" />
        <memory_region name="regs" size="0x1000" phys_addr="0x9000000" />
        <memory_region name="dma" size="0x4000" />
        <protection_domain name="a" priority="9" smc="true"><program_image path="a.elf" />
            <map mr="one" vaddr="0x1000" perms="rw" /><map mr="two" vaddr="0x2000" />
            <protection_domain name="b" id="1" priority="8"><program_image path="b.elf" />
                <map mr="one" vaddr="0x1000" perms="r" /><map mr="two" vaddr="0x2000" perms="rw" />
                <map mr="regs" vaddr="0x4000" cached="false" /><map mr="dma" vaddr="0x5000" />
                <setvar symbol="dma_paddr" region_paddr="dma" />
                <irq irq="33" id="0" />
                <virtual_machine name="g" priority="5"><vcpu id="0" /><map mr="two" vaddr="0" perms="r" /></virtual_machine>
            </protection_domain>
        </protection_domain>
        <channel><end pd="a" id="3" /><end pd="b" id="4" pp="true" notify="false" /></channel>
    </system>"#;

    #[test]
    fn writers_channels_and_powers_are_listed() {
        let report = write(SMALL).unwrap();
        for line in [
            "a  (priority 9, secure monitor calls, parent of b)",
            "    one    4 KiB  rw  cached  0x1000                    one writer; also: b r",
            "    two    8 KiB  rw  cached  0x2000                    WRITERS: a, b; also: b rw, g r",
            "b  (priority 8, child of a, DMA)",
            "    regs    4 KiB  rw  device  0x4000        0x9000000   alone",
            "    dma    16 KiB  rw  cached  0x5000                    alone; physical address known",
            "    irq 33 (level) as 0",
            "    channel 3  b: is called, notifies",
            "    channel 4  a: calls, is notified",
            "g  (virtual machine of b, priority 5, 1 vCPU)",
            "    two    8 KiB  r   cached  0x0                       WRITERS: a, b; also: a rw, b rw",
            "Exceptions to rule 1 (one writer per page): 1",
        ] {
            assert!(report.lines().any(|found| found.trim_end() == line), "no line {line:?} in\n{report}");
        }
    }

    #[test]
    fn what_is_no_system_is_refused() {
        for text in ["", "<a/>", "<system><protection_domain/></system>", "<system><channel/></system>"] {
            let failure = write(text).unwrap_err().to_string();
            assert!(failure.starts_with("system.xml: "), "{failure}");
        }
    }
}
