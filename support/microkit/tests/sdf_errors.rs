//! What a wrong system description is answered: place, element, attribute, what is wrong, what would be right.

mod common;

use common::{parse, with};

/// Inside of PD `p` (line 3 on), beside it, line, column, start of the message behind the place, a part of the remedy.
type Case = (&'static str, &'static str, u32, u32, &'static str, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Elements and attributes.
    ("<foo/>", "", 3, 1, "<foo>: <foo> is not allowed in <protection_domain>", "program_image, map"),
    ("", "<foo/>", 5, 1, "<foo>: <foo> is not allowed in <system>", "memory_region, channel"),
    ("", "<channel><foo/></channel>", 5, 10, "<foo>: <foo> is not allowed in <channel>", "end"),
    ("<map mr=\"m\" vaddr=\"0\" prot=\"r\"/>", "", 3, 23, "<map prot>: unknown attribute 'prot'", "perms"),
    ("<map vaddr=\"0\"/>", "", 3, 1, "<map>: attribute 'mr' is missing", "write mr="),
    ("<map mr=\"m\"/>", "", 3, 1, "<map>: attribute 'vaddr' is missing", "write vaddr="),
    ("", "<memory_region size=\"0x1000\"/>", 5, 1, "<memory_region>: attribute 'name' is missing", "write name="),
    ("", "<protection_domain name=\"q\" id=\"1\"/>", 5, 29, "<protection_domain id>: unknown attribute 'id'", "name, priority"),
    ("<irq irq=\"40\" id=\"1\" setvar=\"x\"/>", "", 3, 22, "<irq setvar>: unknown attribute", "setvar_id"),
    ("", "text", 5, 1, "<system>: text between elements", "<!--"),
    ("", "<virtual_machine name=\"v\"/>", 5, 1, "<virtual_machine>: <virtual_machine> outside", "into the <protection_domain>"),
    ("", "<io_address_space/>", 5, 1, "<io_address_space>: there is no IOMMU", "region_paddr"),
    ("<ioport id=\"1\" addr=\"1\" size=\"1\"/>", "", 3, 1, "<ioport>: I/O ports exist on x86 only", "remove"),
    ("<program_image path=\"pd.elf\"/>", "", 3, 1, "<program_image>: a second <program_image>", "has one"),
    // Numbers and words.
    ("<map mr=\"m\" vaddr=\"0x1g\"/>", "", 3, 13, "<map vaddr>: '0x1g' is not a number", "decimal or 0x"),
    ("<map mr=\"m\" vaddr=\"-1\"/>", "", 3, 13, "<map vaddr>: '-1' is not a number", "decimal or 0x"),
    ("<irq irq=\"0x28\" id=\"1\"/>", "", 3, 6, "<irq irq>: '0x28' is not a decimal number", "shared peripheral"),
    ("<irq irq=\"40\" id=\"0x1\"/>", "", 3, 15, "<irq id>: '0x1' is not decimal", "0 to 61"),
    ("<irq irq=\"40\" id=\"62\"/>", "", 3, 15, "<irq id>: 62 is out of range", "0 to 61"),
    ("<irq irq=\"40\" id=\"-1\"/>", "", 3, 15, "<irq id>: -1 is out of range", "0 to 61"),
    ("<irq irq=\"40\" id=\"one\"/>", "", 3, 15, "<irq id>: 'one' is not a number", "0 to 61"),
    ("<irq irq=\"40\" id=\"1\" trigger=\"rising\"/>", "", 3, 22, "<irq trigger>: 'rising' is not a trigger", "'level' or 'edge'"),
    ("<map mr=\"m\" vaddr=\"0\" cached=\"no\"/>", "", 3, 23, "<map cached>: 'no' is not a boolean", "'true' or 'false'"),
    ("<map mr=\"m\" vaddr=\"0\" perms=\"rq\"/>", "", 3, 23, "<map perms>: 'q' is not a permission", "'r', 'w' and 'x'"),
    ("<map mr=\"m\" vaddr=\"0\" perms=\"w\"/>", "", 3, 23, "<map perms>: memory cannot be mapped write-only", "'rw'"),
    // Protection domains.
    ("", "<protection_domain name=\"q\"/>", 5, 1, "<protection_domain>: protection domain 'q' has no <program_image>", "write <program_image"),
    ("", "<protection_domain name=\"q\" priority=\"255\"/>", 5, 29, "<protection_domain priority>: priority 255 is out of range", "0 to 254"),
    ("", "<protection_domain name=\"q\" budget=\"20\" period=\"19\"/>", 5, 29, "<protection_domain budget>: the budget (20) is greater", "less than or equal"),
    ("", "<protection_domain name=\"q\" budget=\"19\"/>", 5, 29, "<protection_domain budget>: a budget of 19 us", "at least 20"),
    ("", "<protection_domain name=\"q\" period=\"36893488147420\"/>", 5, 29, "<protection_domain period>: a period of 36893488147420 us", "at most 36893488147419"),
    ("", "<protection_domain name=\"q\" stack_size=\"0x800\"/>", 5, 29, "<protection_domain stack_size>: 0x800 is no size", "multiple of 0x1000"),
    ("", "<protection_domain name=\"q\" stack_size=\"0x1001000\"/>", 5, 29, "<protection_domain stack_size>: 0x1001000 is no size", "to 0x1000000"),
    ("", "<protection_domain name=\"q\" cpu=\"1\"/>", 5, 29, "<protection_domain cpu>: core 1 does not exist", "1 core"),
    ("", "<protection_domain name=\"q\" domain=\"d\"/>", 5, 29, "<protection_domain domain>: domain 'd', but no domains", "<domains>"),
    ("", "<protection_domain name=\"p\"><program_image path=\"pd.elf\"/></protection_domain>", 5, 1, "<protection_domain>: a second protection domain 'p'", "unique"),
    ("", "<protection_domain name=\"monitor\"><program_image path=\"pd.elf\"/></protection_domain>", 5, 1, "<protection_domain>: the name 'monitor'", "another name"),
    ("<protection_domain name=\"c\"/>", "", 3, 1, "<protection_domain>: attribute 'id' is missing", "write id="),
    ("<protection_domain name=\"c\" id=\"64\"/>", "", 3, 29, "<protection_domain id>: child id 64 is out of range", "0 to 63"),
    ("<protection_domain name=\"c\" id=\"1\"><program_image path=\"x\"/></protection_domain>\n<protection_domain name=\"d\" id=\"1\"><program_image path=\"x\"/></protection_domain>", "", 4, 29, "<protection_domain id>: a second child 1", "share ids"),
    ("<virtual_machine name=\"v\"><vcpu id=\"1\"/></virtual_machine>\n<protection_domain name=\"d\" id=\"1\"><program_image path=\"x\"/></protection_domain>", "", 4, 29, "<protection_domain id>: child 1 has the id of a vCPU", "share ids"),
    // Virtual machines.
    ("<virtual_machine name=\"v\"/>", "", 3, 1, "<virtual_machine>: virtual machine 'v' has no vCPU", "<vcpu id="),
    ("<virtual_machine name=\"v\"><vcpu id=\"62\"/></virtual_machine>", "", 3, 33, "<vcpu id>: 62 is out of range", "0 to 61"),
    ("<virtual_machine name=\"v\"><vcpu id=\"1\"/><vcpu id=\"1\"/></virtual_machine>", "", 3, 47, "<vcpu id>: a second vCPU 1", "unique"),
    ("<virtual_machine name=\"v\"><vcpu id=\"1\"/><map mr=\"m\" vaddr=\"0\" setvar_vaddr=\"s\"/></virtual_machine>", "", 3, 63, "<map setvar_vaddr>: unknown attribute", "perms, cached"),
    ("<virtual_machine name=\"v\" priority=\"256\"><vcpu id=\"1\"/></virtual_machine>", "", 3, 27, "<virtual_machine priority>: priority 256", "0 to 255"),
    ("<virtual_machine name=\"v\"><vcpu id=\"1\"/></virtual_machine>\n<virtual_machine name=\"w\"><vcpu id=\"1\"/></virtual_machine>", "", 4, 1, "<virtual_machine>: a second <virtual_machine>", "at most one"),
    // Memory.
    ("<map mr=\"m\" vaddr=\"0\"/>", "", 3, 6, "<map mr>: there is no memory region 'm'", "declares"),
    ("<map mr=\"m\" vaddr=\"0x800\"/>", "<memory_region name=\"m\" size=\"0x1000\"/>", 3, 13, "<map vaddr>: 0x800 is not aligned", "multiple of 0x1000"),
    ("<map mr=\"m\" vaddr=\"0xffffffc000\"/>", "", 3, 13, "<map vaddr>: 0xffffffc000 is outside", "0xffffffbfff"),
    ("<map mr=\"m\" vaddr=\"0xffffffb000\"/>", "<memory_region name=\"m\" size=\"0x2000\"/>", 3, 13, "<map vaddr>: 'm' (0x2000 bytes at 0xffffffb000) exceeds", "0xffffffc000"),
    ("<map mr=\"m\" vaddr=\"0x1000\"/>\n<map mr=\"n\" vaddr=\"0x2000\"/>", "<memory_region name=\"m\" size=\"0x2000\"/><memory_region name=\"n\" size=\"0x1000\"/>", 4, 13, "<map vaddr>: 'n' overlaps 'm' at 0x1000..0x3000 in protection domain 'p'", "free"),
    ("<map mr=\"m\" vaddr=\"0\"/>", "<memory_region name=\"m\" size=\"0\"/>", 3, 13, "<map vaddr>: memory region 'm' has no bytes", "above 0"),
    ("", "<memory_region name=\"m\"/>", 5, 1, "<memory_region>: attribute 'size' is missing", "prefill_path"),
    ("", "<memory_region name=\"m\" size=\"0x1800\"/>", 5, 25, "<memory_region size>: 0x1800 is not a multiple", "multiple of 0x1000"),
    ("", "<memory_region name=\"m\" size=\"0x1000\" page_size=\"0x4000\"/>", 5, 39, "<memory_region page_size>: there are no pages of 0x4000", "0x200000"),
    ("", "<memory_region name=\"m\" size=\"0x200000\" page_size=\"0x200000\" phys_addr=\"0x9001000\"/>", 5, 62, "<memory_region phys_addr>: 0x9001000 is not aligned", "multiple of 0x200000"),
    ("", "<memory_region name=\"m\" size=\"0x1000\" phys_addr=\"0x8000000\"/>", 5, 39, "<memory_region phys_addr>: there is no usable memory at 0x8000000", "0x60000000..0xc0000000"),
    ("", "<memory_region name=\"m\" size=\"0x1000\" phys_addr=\"0xfffffffffffff000\"/>", 5, 39, "<memory_region phys_addr>: 0xfffffffffffff000 and a size of 0x1000 exceed", "RAM"),
    ("", "<memory_region name=\"m\" size=\"0x2000\" phys_addr=\"0x9000000\"/>\n<memory_region name=\"n\" size=\"0x1000\" phys_addr=\"0x9001000\"/>", 6, 39, "<memory_region phys_addr>: 'n' overlaps memory region 'm'", "twice"),
    ("", "<memory_region name=\"m\" size=\"0x1000\"/>\n<memory_region name=\"m\" size=\"0x1000\"/>", 6, 1, "<memory_region>: a second memory region 'm'", "unique"),
    ("", "<memory_region name=\"m\" prefill_path=\"none\"/>", 5, 25, "<memory_region prefill_path>: there is no file 'none'", "--search-path"),
    ("", "<memory_region name=\"m\" prefill_path=\"empty\"/>", 5, 25, "<memory_region prefill_path>: file 'empty' is empty", "remove"),
    ("", "<memory_region name=\"m\" size=\"0x1000\" prefill_path=\"five\"/>", 5, 25, "<memory_region size>: the prefill file has 0x1388 bytes", "at least 0x2000"),
    ("", "<memory_region name=\"m\" size=\"0x3000\" prefill_path=\"five\"/>", 5, 25, "<memory_region size>: the prefill file ends", "write 0x2000"),
    ("", "<memory_region name=\"m\" prefill_path=\"five\" prefill_bootinfo=\"fdt\"/>", 5, 45, "<memory_region prefill_bootinfo>: prefill_path and prefill_bootinfo together", "one source"),
    ("", "<memory_region name=\"m\" prefill_bootinfo=\"acpi\"/>", 5, 25, "<memory_region prefill_bootinfo>: there is no boot information 'acpi'", "x86_vbe"),
    ("", "<memory_region name=\"m\" size=\"0x8000001000\" phys_addr=\"0xc0000000\"/>", 5, 1, "<memory_region>: 'm' has 134217729 pages", "at most 4194304"),
    // Interrupts and channels.
    ("<irq irq=\"27\" id=\"1\"/>", "", 3, 6, "<irq irq>: interrupt 27 is the kernel's (virtual timer)", "another"),
    ("<irq irq=\"160\" id=\"1\"/>", "", 3, 6, "<irq irq>: there is no interrupt 160", "0 to 159"),
    ("<irq irq=\"40\" id=\"1\"/><irq irq=\"40\" id=\"2\"/>", "", 3, 28, "<irq irq>: interrupt 40 is used twice", "belongs to one"),
    ("<irq irq=\"40\" id=\"1\"/><irq irq=\"41\" id=\"1\"/>", "", 3, 37, "<irq id>: id 1 is used twice", "share ids"),
    ("<irq pin=\"1\" id=\"1\"/>", "", 3, 6, "<irq pin>: I/O APIC interrupts", "irq="),
    ("<irq id=\"1\"/>", "", 3, 1, "<irq>: attribute 'irq' is missing", "write irq="),
    ("", "<channel><end pd=\"p\" id=\"1\"/></channel>", 5, 1, "<channel>: 1 ends", "exactly two"),
    ("", "<channel><end pd=\"p\" id=\"1\"/><end pd=\"q\" id=\"1\"/></channel>", 5, 35, "<end pd>: there is no protection domain 'q'", "declares"),
    ("<irq irq=\"40\" id=\"1\"/>", "<channel><end pd=\"p\" id=\"0\"/><end pd=\"p\" id=\"1\"/></channel>", 5, 42, "<end id>: id 1 is used twice in protection domain 'p'", "choose a free one"),
    ("", "<channel><end pd=\"p\" id=\"0\" pp=\"true\"/><end pd=\"p\" id=\"1\" pp=\"true\"/></channel>", 5, 1, "<channel>: protected calls in both directions", "lower priority"),
    ("", "<channel><end pd=\"p\" id=\"0\" pp=\"true\"/><end pd=\"p\" id=\"1\"/></channel>", 5, 29, "<end pp>: 'p' (priority 10) calls 'p' (priority 10)", "strictly higher"),
    // Setvars and user capabilities.
    ("<setvar symbol=\"s\" region_paddr=\"m\"/>", "", 3, 20, "<setvar region_paddr>: there is no memory region 'm'", "declares"),
    ("<setvar symbol=\"s\"/>", "", 3, 1, "<setvar>: attribute 'region_paddr' is missing", "write region_paddr="),
    ("<irq irq=\"40\" id=\"1\" setvar_id=\"s\"/><irq irq=\"41\" id=\"2\" setvar_id=\"s\"/>", "", 3, 58, "<irq setvar_id>: symbol 's' is set twice", "one place"),
    ("<map mr=\"m\" vaddr=\"0\" setvar_prefill_size=\"s\"/>", "<memory_region name=\"m\" size=\"0x1000\"/>", 3, 23, "<map setvar_prefill_size>: memory region 'm' has no prefill_path", "setvar_size"),
    ("<cspace><cap_tcb slot=\"0\" pd=\"p\"/></cspace>", "", 3, 18, "<cap_tcb slot>: slot 0 holds Microkit's", "1 to 63"),
    ("<cspace><cap_tcb slot=\"64\" pd=\"p\"/></cspace>", "", 3, 18, "<cap_tcb slot>: slot 64 does not exist", "1 to 63"),
    ("<cspace><cap_sc slot=\"1\" pd=\"x\"/></cspace>", "", 3, 26, "<cap_sc pd>: there is no protection domain 'x'", "declares"),
    ("<cspace><cap_sc slot=\"1\" pd=\"p\"/><cap_tcb slot=\"1\" pd=\"p\"/></cspace>", "", 3, 43, "<cap_tcb slot>: slot 1 of protection domain 'p' is taken", "another"),
    ("<cspace><cap_cnode slot=\"1\" pd=\"p\"/></cspace>", "", 3, 9, "<cap_cnode>: <cap_cnode> is not allowed in <cspace>", "cap_tcb, cap_sc, cap_vspace"),
    ("<cspace/><cspace/>", "", 3, 10, "<cspace>: a second <cspace>", "once"),
];

#[test]
fn every_error_says_where_what_and_what_instead() {
    let mut failures = Vec::new();
    for (inner, outer, line, column, wrong, right) in CASES {
        let Err(error) = parse(&with(inner, outer)) else {
            failures.push(format!("accepted: {inner} {outer}"));
            continue;
        };
        let text = error.to_string();
        let expected = format!("test.system:{line}:{column}: {wrong}");
        if !text.starts_with(&expected) || !error.right.contains(right) {
            failures.push(format!("expected {expected} ... {right}\n     got {text}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), CASES.len(), failures.join("\n"));
    assert!(CASES.len() >= 40);
}

#[test]
fn errors_of_the_document() {
    let cases = [
        ("", "test.system:1:1: not well-formed XML"),
        ("<system>\n<a></b></system>", "test.system:2:4: not well-formed XML"),
        ("<sys/>", "test.system:1:1: <sys>: the root element is <sys>; a system description is one <system>"),
        ("<!-- c -->\n<system/>", "test.system:2:1: <system>: there is no protection domain"),
        ("<!DOCTYPE system [<!ENTITY a \"b\">]><system/>", "test.system:1:1: not well-formed XML"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}

#[test]
fn at_most_63_protection_domains_and_no_deep_recursion() {
    let pd = |i: usize| {
        format!("<protection_domain name=\"p{i}\"><program_image path=\"pd.elf\"/></protection_domain>\n")
    };
    let system = |count| format!("<system>\n{}</system>", (0..count).map(pd).collect::<String>());
    assert_eq!(parse(&system(63)).unwrap().pds.len(), 63);
    let error = parse(&system(64)).unwrap_err().to_string();
    assert!(error.starts_with("test.system:65:1: <protection_domain>: more than 63"), "{error}");

    let open = "<protection_domain name=\"x\" id=\"1\"><program_image path=\"pd.elf\"/>";
    let first = "<protection_domain name=\"r\"><program_image path=\"pd.elf\"/>";
    let deep = format!("<system>{first}{}{}</system>", open.repeat(900), "</protection_domain>".repeat(901));
    assert!(parse(&deep).unwrap_err().to_string().contains("more than 63"));
}

#[test]
fn domains_are_checked_and_then_refused_for_the_kernel() {
    let pd =
        "<protection_domain name=\"p\" domain=\"d\"><program_image path=\"pd.elf\"/></protection_domain>";
    let text = |inner: &str| format!("<system>\n<domains>{inner}</domains>\n{pd}\n</system>");
    let schedule = "<domain_schedule><schedule_entry domain=\"d\" duration=\"5 us\"/></domain_schedule>";
    let cases = [
        (format!("<domain name=\"d\"/>{schedule}"), "2:1: <domains>: the embedded kernel has no domain scheduler"),
        ("<domain name=\"d\"/>".to_owned(), "2:1: <domains>: <domain_schedule> is missing"),
        (format!("<domain name=\"e\"/>{schedule}"), "2:61: <schedule_entry domain>: there is no domain 'd'"),
        (format!("<domain name=\"d\" id=\"16\"/>{schedule}"), "2:27: <domain id>: domain id 16 is too great"),
        (
            "<domain name=\"d\"/><domain_schedule start_index=\"1\"><schedule_entry domain=\"d\" duration=\"5 us\"/></domain_schedule>".to_owned(),
            "2:45: <domain_schedule start_index>: start_index 1 is not an entry",
        ),
        (
            "<domain name=\"d\"/><domain_schedule><schedule_entry domain=\"d\" duration=\"0 us\"/></domain_schedule>".to_owned(),
            "2:72: <schedule_entry duration>: a duration of 0",
        ),
    ];
    for (inner, expected) in cases {
        let error = parse(&text(&inner)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("test.system:{expected}")), "{error}");
    }
}

#[test]
fn doubtful_descriptions_are_accepted_with_a_warning() {
    let vm = "<virtual_machine name=\"v\"><vcpu id=\"1\" setvar_id=\"x\"/></virtual_machine>";
    let regions =
        "<memory_region name=\"m\" size=\"0x1000\"/><memory_region name=\"b\" prefill_bootinfo=\"fdt\"/>";
    let system = parse(&with(vm, regions)).unwrap();
    let all = system.warnings.join("\n");
    for part in ["ignores setvar_id of a vCPU", "'m' is mapped nowhere", "'fdt' reads as zeros"] {
        assert!(all.contains(part), "{all}");
    }
}
