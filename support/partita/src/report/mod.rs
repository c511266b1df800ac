//! `partita report`: what each protection domain may touch, as a table and as a picture, read from system.xml alone.
//!
//! Nothing of what the generator meant enters here: a reader of the table sees what Microkit will enforce. Rule 1 of
//! docs/architecture.md is one writer per page; every region with more writers is listed with what it is.

mod facts;
mod picture;
mod read;
mod svg;
mod table;

use crate::{
    boot_files::BootFiles,
    build,
    context::Context,
    failure::{Failure, Result},
    system,
};

/// Prints the report for the description and draws it into the build directory.
///
/// # Errors
/// The description is wrong; the picture cannot be written.
pub fn run(context: &Context) -> Result {
    let text = context.read_description()?;
    let config = context.parse(&text)?;
    let files = BootFiles::lay_out(context, &config)?;
    let xml = system::generate(&config, context.board, &files)?;
    print!("{}", write(&xml)?);
    build::create(&context.build_dir())?;
    let path = context.build_dir().join("report.svg");
    build::write(&path, draw(&xml)?.as_bytes())?;
    println!("The same as a picture: {}", path.display());
    Ok(())
}

/// The report about a system.xml.
///
/// # Errors
/// It is no system description.
pub fn write(xml: &str) -> Result<String> {
    read(xml).map(|system| table::write(&system))
}

/// The picture of a system.xml, as SVG.
///
/// # Errors
/// It is no system description.
pub fn draw(xml: &str) -> Result<String> {
    read(xml).map(|system| picture::draw(&system))
}

fn read(xml: &str) -> Result<read::System> {
    read::read(xml).map_err(|why| Failure::new(format!("system.xml: {why}")))
}

#[cfg(test)]
mod tests {
    use super::{draw, write};

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
    fn the_picture_says_the_same() {
        let svg = draw(SMALL).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<&str> =
            document.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
        for text in [
            "a",
            "b",
            "g",
            "secure monitor calls",
            "DMA: can reach all memory",
            "interrupt 33 (level)",
            "device regs 0x9000000",
            "Exceptions to rule 1: 1 regions with more than one writer",
            "16 KiB, DMA by b",
        ] {
            assert!(texts.contains(&text), "no {text:?} in {texts:?}");
        }
        let count =
            |class: &str| document.descendants().filter(|n| n.attribute("class") == Some(class)).count();
        // a: one, two; b: two, regs, dma; and the legend's.
        assert_eq!((count("writes"), count("reads")), (5 + 1, 2 + 2));
        // The channel, and the legend's line.
        assert_eq!((count("call"), count("alarmrow"), count("owns")), (2, 1, 1));
    }

    #[test]
    fn what_is_no_system_is_refused() {
        for text in ["", "<a/>", "<system><protection_domain/></system>", "<system><channel/></system>"] {
            let failure = write(text).unwrap_err().to_string();
            assert!(failure.starts_with("system.xml: "), "{failure}");
        }
    }
}
