//! Capability layout, bound objects and patched variables of sample systems, as Microkit 2.3.0 lays them out.

mod common;

use std::collections::BTreeMap;

use common::{DATA, packed};
use partita_microkit::listing::Listing;
use partita_microkit::memory::Piece;
use partita_microkit::pack::Packed;
use partita_microkit::sdk::Board;
use partita_microkit::spec::{Cap, Object, Tcb};
use partita_microkit::{capdl, report};

/// `p` (index 0, passive, SMC, VM) with child `c` (1), which has child `d` (2); `q` (3).
const SYSTEM: &str = r#"<system>
<memory_region name="ram" size="0x400000"/>
<memory_region name="uart" size="0x1000" phys_addr="0x9000000"/>
<memory_region name="file" prefill_path="five"/>
<protection_domain name="p" priority="100" passive="true" smc="true" fpu="false" budget="500" period="2000">
  <program_image path="pd.elf"/>
  <map mr="ram" vaddr="0x40000000" setvar_vaddr="var_a" setvar_size="var_b"/>
  <setvar symbol="var_c" region_paddr="ram"/>
  <irq irq="33" id="4" trigger="edge"/>
  <irq irq="48" id="61"/>
  <protection_domain name="c" priority="120" id="3">
    <program_image path="pd.elf"/>
    <map mr="file" vaddr="0x1000000" perms="r" setvar_prefill_size="var_a"/>
    <protection_domain name="d" id="0" setvar_id="var_b"><program_image path="pd.elf"/></protection_domain>
  </protection_domain>
  <virtual_machine name="v" priority="50" budget="300">
    <vcpu id="7"/><vcpu id="2"/><map mr="ram" vaddr="0x40000000" perms="rwx"/>
  </virtual_machine>
  <cspace><cap_tcb slot="1" pd="q"/><cap_sc slot="2" pd="p"/><cap_vspace slot="63" pd="d"/></cspace>
</protection_domain>
<protection_domain name="q" priority="7"><program_image path="pd.elf"/>
  <map mr="uart" vaddr="0x2000000" cached="false"/>
</protection_domain>
<channel><end pd="p" id="0"/><end pd="q" id="1" pp="true" setvar_id="var_a"/></channel>
<channel><end pd="c" id="5" notify="false"/><end pd="q" id="60"/></channel>
</system>"#;

fn cnode(packed: &Packed, name: &str) -> BTreeMap<u32, String> {
    let spec = &packed.spec;
    let found = spec.objects.iter().find(|object| object.name == format!("cnode_{name}"));
    let Some(Object::CNode(_, slots)) = found.map(|named| &named.object) else { panic!("no CNode {name}") };
    let text = |cap: &Cap| match cap.badge() {
        Some(badge) => format!("{} {badge:#x}", spec.name(cap.object())),
        None => spec.name(cap.object()).to_owned(),
    };
    slots.iter().map(|(slot, cap)| (*slot, text(cap))).collect()
}

fn expect(packed: &Packed, name: &str, expected: &[(u32, &str)]) {
    let expected: BTreeMap<_, _> = expected.iter().map(|(slot, cap)| (*slot, (*cap).to_owned())).collect();
    assert_eq!(cnode(packed, name), expected, "cnode_{name}");
}

fn tcb<'a>(packed: &'a Packed, name: &str) -> &'a Tcb {
    let found = packed.spec.objects.iter().find(|object| object.name == format!("tcb_{name}"));
    match found.map(|named| &named.object) {
        Some(Object::Tcb(tcb)) => tcb,
        _ => panic!("no TCB {name}"),
    }
}

#[test]
fn slots_badges_and_objects() {
    let (_, packed) = packed(SYSTEM).unwrap();
    expect(
        &packed,
        "p",
        &[
            (1, "ep_p 0x0"),
            (2, "ep_fault_monitor 0x1"),
            (3, "pud_p"),
            (4, "reply_p"),
            (5, "ep_fault_monitor 0x1"),
            (7, "arm_smc"),
            (10, "ntfn_q 0x2"),
            (138 + 4, "irq_33_p"),
            (138 + 61, "irq_48_p"),
            (202 + 3, "tcb_c"),
            (266 + 2, "tcb_v_2"),
            (266 + 7, "tcb_v_7"),
            (330 + 2, "vcpu_v_2"),
            (330 + 7, "vcpu_v_7"),
        ],
    );
    expect(
        &packed,
        "c",
        &[(1, "ep_c 0x0"), (2, "ep_p 0x4000000000000003"), (3, "pud_c"), (4, "reply_c"), (202, "tcb_d")],
    );
    expect(&packed, "d", &[(1, "ntfn_d 0x0"), (2, "ep_c 0x4000000000000000"), (3, "pud_d"), (4, "reply_d")]);
    expect(
        &packed,
        "q",
        &[
            (1, "ntfn_q 0x0"),
            (2, "ep_fault_monitor 0x4"),
            (3, "pud_q"),
            (4, "reply_q"),
            (10 + 1, "ntfn_p 0x1"),
            (10 + 60, "ntfn_c 0x20"),
            (74 + 1, "ep_p 0x8000000000000000"),
        ],
    );
    expect(&packed, "p_root", &[(0, "cnode_p"), (1, "tcb_q"), (2, "sched_context_p"), (63, "pud_d")]);
    expect(
        &packed,
        "monitor",
        &[
            (1, "ep_fault_monitor 0x0"),
            (2, "reply_monitor"),
            (10, "tcb_p"),
            (11, "tcb_c"),
            (12, "tcb_d"),
            (13, "tcb_q"),
            (74, "tcb_v_7"),
            (75, "tcb_v_2"),
            (138, "sched_context_p"),
            (202, "ntfn_p 0x0"),
        ],
    );
    expect(&packed, "v_7", &[]);
}

#[test]
fn threads() {
    let (_, packed) = packed(SYSTEM).unwrap();
    let p = tcb(&packed, "p");
    assert_eq!((p.pc, p.sp, p.ipc_vaddr), (0x20_0000, 0xff_ffff_e000, 0xff_ffff_f000));
    assert_eq!((p.priority, p.fpu, p.resume, p.cspace.1), (100, false, true, 0));
    let v = tcb(&packed, "v_2");
    assert_eq!((v.pc, v.sp, v.ipc_vaddr, v.priority), (0, 0, 0, 50));
    assert_eq!((v.fpu, v.resume, v.cspace.1, v.notification), (true, false, 55, None));
    assert_eq!(v.fault.map(|fault| fault.1), Some(1 << 62 | 2));
    let monitor = tcb(&packed, "monitor");
    assert_eq!((monitor.priority, monitor.cspace.1, monitor.fault), (255, 55, None));

    let name = |id: usize| packed.spec.name(id).to_owned();
    let sched = |tcb: &Tcb| match packed.spec.objects[tcb.sched_context].object {
        Object::SchedContext { budget, period, badge } => (budget, period, badge),
        _ => panic!(),
    };
    assert_eq!(sched(p), (500, 2000, 0x100));
    assert_eq!(sched(tcb(&packed, "q")), (1000, 1000, 0x103));
    assert_eq!(sched(tcb(&packed, "v_7")), (300, 300, 0x100));
    assert_eq!(sched(v), (300, 300, 0x101));
    let order: Vec<_> = packed.spec.start_order.iter().map(|id| name(*id)).collect();
    assert_eq!(order[0], "tcb_monitor");
    let pds: Vec<_> = order.iter().map(String::as_str).filter(|name| !name.contains("_v_")).collect();
    assert_eq!(pds, ["tcb_monitor", "tcb_c", "tcb_d", "tcb_p", "tcb_q"]);
}

/// Bytes of a PD's data segment in the image.
fn data(packed: &Packed, address: u64, size: usize, pd: &str) -> Vec<u8> {
    let memory =
        packed.spec.memories.iter().enumerate().filter(|(_, m)| m.name == format!("elf_{pd}")).nth(1);
    let Some((id, _)) = memory else { panic!("no data of {pd}") };
    let Piece { paddr, .. } = packed.pieces[id][0];
    let at = (paddr - packed.base + (address - DATA)) as usize;
    packed.image[at..at + size].to_vec()
}

fn word(packed: &Packed, address: u64, pd: &str) -> u64 {
    u64::from_le_bytes(data(packed, address, 8, pd).try_into().unwrap())
}

#[test]
fn variables() {
    let (_, packed) = packed(SYSTEM).unwrap();
    assert_eq!(&data(&packed, DATA, 3, "p"), b"p\0\0");
    assert_eq!(data(&packed, DATA + 64, 1, "p"), [1]);
    assert_eq!(data(&packed, DATA + 64, 1, "q"), [0]);
    assert_eq!(word(&packed, DATA + 72, "p"), 1 << 4 | 1 << 61); // irqs
    assert_eq!(word(&packed, DATA + 80, "p"), 1); // notifications
    assert_eq!(word(&packed, DATA + 80, "q"), 1 << 1 | 1 << 60);
    assert_eq!(word(&packed, DATA + 80, "c"), 0);
    assert_eq!(word(&packed, DATA + 88, "q"), 1 << 1); // protected calls
    assert_eq!(word(&packed, DATA + 88, "p"), 0);
    assert_eq!(word(&packed, DATA + 104, "p"), 0x4000_0000); // var_a
    assert_eq!(word(&packed, DATA + 112, "p"), 0x40_0000); // var_b
    assert_eq!(word(&packed, DATA + 104, "c"), 5000);
    assert_eq!(word(&packed, DATA + 112, "c"), 0); // child id, set in the parent
    assert_eq!(word(&packed, DATA + 104, "q"), 1);
    let ram = packed.spec.memories.iter().position(|memory| memory.name == "mr_ram").unwrap();
    let paddr = packed.pieces[ram][0].paddr;
    assert_eq!(word(&packed, DATA + 0x2000, "p"), paddr); // var_c, in bss
    assert_eq!(paddr % 0x20_0000, 0);
}

#[test]
fn wrong_variables_are_refused_with_their_place() {
    let cases = [
        ("none", "cannot set a variable of 'pd.elf': there is no symbol 'none'"),
        ("twice", "cannot set a variable of 'pd.elf': several symbols are named 'twice'"),
        ("small", "cannot set a variable of 'pd.elf': symbol 'small' has 4 bytes"),
    ];
    for (symbol, expected) in cases {
        let irq = format!("<irq irq=\"40\" id=\"1\" setvar_id=\"{symbol}\"/>");
        let error = packed(&common::with(&irq, "")).unwrap_err();
        assert!(error.starts_with("test.system:3:22: <irq setvar_id>: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_that_collide_are_refused() {
    let pd = |name: &str| {
        format!("<protection_domain name=\"{name}\"><program_image path=\"pd.elf\"/></protection_domain>")
    };
    let text = format!("<system>{}{}</system>", pd("a"), pd("a_root"));
    assert!(packed(&text).unwrap_err().contains("two objects would be named 'cnode_a_root'"));
    let vm = "<virtual_machine name=\"p\"><vcpu id=\"0\"/></virtual_machine>";
    assert!(packed(&common::with(vm, "")).unwrap_err().contains("two objects would be named 'pud_p'"));
}

#[test]
fn regions_over_the_program_are_refused() {
    let region = "<memory_region name=\"m\" size=\"0x1000\"/>";
    let error = packed(&common::with("<map mr=\"m\" vaddr=\"0x212000\"/>", region)).unwrap_err();
    assert!(
        error.contains("'m' at 0x212000..0x213000 overlaps the program at 0x210000..0x213000"),
        "{error}"
    );
    assert!(packed(&common::with("<map mr=\"m\" vaddr=\"0x213000\"/>", region)).is_ok());
}

#[test]
fn report_and_capdl_file_tell_the_same() {
    let board = Board::qemu_virt();
    let (_, packed) = packed(SYSTEM).unwrap();
    let listing = Listing::new(&packed.spec, &packed.pieces, &board);
    let text = report::write(&packed, &listing, &board);
    for part in [
        "\t- IRQ: 'irq_33_p'\n\t\t* Number: 33\n\t\t* Trigger: edge\n\t\t* CPU: 0\n",
        "\t- TCB: 'tcb_v_7'\n\t\t* IP: 0x0\n\t\t* SP: 0x0\n\t\t* IPC Buffer: 0x0\n\t\t* Priority: 50\n",
        "\t\t* Slot: 75\n\t\t\t-> Object: 'ep_p'\n\t\t\t-> Rights: Read, Write, Grant\n\t\t\t-> Badge: 0x8000000000000000\n",
        "ARM SMC access is granted to userspace.",
        "\t0 - Page(4 KiB): 'frame_mr_uart_000000000' @ 0x000009000000\n",
        "PageTable: 'pt_q_vaddr_0x2000000'",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let lengths = vec![vec![100, 0x3000]; 5];
    let json = capdl::write(&packed.spec, &listing, &lengths);
    let objects = json["objects"].as_array().unwrap();
    assert_eq!(objects.len(), listing.entries.len());
    // Every object number leads to an object whose kind fits the capability.
    let mut checked = 0;
    for object in objects {
        let body = &object["object"];
        let slots =
            ["CNode", "Tcb", "PageTable", "ArmIrq"].iter().find_map(|kind| body[*kind]["slots"].as_array());
        for cap in slots.into_iter().flatten() {
            let (kind, value) = cap["cap"].as_object().unwrap().iter().next().unwrap();
            let target = &objects[value["object"].as_u64().unwrap() as usize]["object"];
            let kind = if kind == "ArmIrqHandler" { "ArmIrq" } else { kind.as_str() };
            assert!(target == kind || target.get(kind).is_some(), "{kind}: {target}");
            checked += 1;
        }
    }
    assert!(checked > 100);
    assert_eq!(json["irqs"].as_array().unwrap().len(), 2);
}
