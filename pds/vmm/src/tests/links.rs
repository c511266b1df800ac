use super::*;
use crate::machine::Field;
use partita_protocol::links;

const TABLE: u64 = guest::LINK_CONTROL;
const BELL: u64 = TABLE + links::IPI_INVOKE as u64;
const UNKNOWN_SYSCALL: u64 = 2;

fn rung(guest: &Guest) -> u32 {
    guest.bells.0.rung[0][0].load(Ordering::Relaxed)
}

fn deliver(guest: &mut Guest) -> Next {
    let counter = &guest.bells.1.delivered[0];
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    guest.vmm.notified(1 << channel::VMM_IVC)
}

#[test]
fn the_control_table_says_what_the_link_is() {
    let guest = Guest::running();
    let words: Vec<u32> = (0..6).map(|n| crate::machine::Page::load(&guest.table, 4 * n)).collect();
    assert_eq!(words, [3, 2, 0x2000, 0x1_0000, 1, 0]);
}

#[test]
fn a_store_to_ipi_invoke_rings() {
    let mut guest = Guest::running();
    let before = (rung(&guest), guest.stats.get(Counter::Doorbell));
    assert_eq!(guest.store(BELL, 0), Next::Notify(channel::VMM_IVC));
    assert!(guest.machine.0.borrow().resumed);
    // To itself, to nobody, beside the register: nothing to tell anybody, and the guest goes on.
    for (ipa, value) in [(BELL, 1), (BELL, 2), (BELL, u32::MAX), (TABLE, 0), (TABLE + 0x18, 0)] {
        assert_eq!(guest.store(ipa, value), Next::Receive, "{ipa:#x} {value}");
        assert!(guest.machine.0.borrow().resumed);
    }
    assert_eq!((rung(&guest), guest.stats.get(Counter::Doorbell)), (before.0 + 1, before.1 + 6));
    // The cell has one link.
    let _ = guest.store(BELL + 0x1000, 0);
    assert!(guest.log().contains("guest crashed: store to nothing"));
}

#[test]
fn doorbells_arrive_as_one_interrupt_and_wake_the_guest() {
    let mut guest = Guest::running();
    let _ = deliver(&mut guest);
    let _ = deliver(&mut guest);
    assert!(guest.machine.0.borrow().injected.is_empty(), "masked");
    guest.set(GICD + 0x100 + 8, 1);
    assert_eq!(guest.machine.0.borrow().injected.iter().map(|i| i.intid).collect::<Vec<_>>(), [64]);
    let _ = guest.vmm.fault(0, MAINTENANCE, [0, 0, 0, 0]);
    assert_eq!(guest.trap(WFI), Next::Wait);
    // Nothing new: it sleeps on.
    assert_eq!(guest.vmm.notified(1 << channel::VMM_IVC), Next::Wait);
    assert_eq!(deliver(&mut guest), Next::Reply);
    assert_eq!(guest.machine.0.borrow().injected.len(), 2);
}

#[test]
fn a_fast_bell_is_put_off_until_the_timer_fires() {
    let mut guest = Guest::running();
    let mut told = 0;
    while guest.store(BELL, 0) == Next::Notify(channel::VMM_IVC) {
        told += 1;
    }
    assert_eq!(told, links::BELL_BURST);
    assert_eq!(guest.machine.0.borrow().signals, [channel::TIMER]);
    let deadline = guest.request.deadline.load(Ordering::Relaxed);
    assert!(deadline > 0 && deadline < 62_500_000);
    guest.machine.0.borrow_mut().now = deadline;
    guest.timer.fired.store(deadline, Ordering::Relaxed);
    assert_eq!(guest.vmm.notified(1 << channel::TIMER), Next::Notify(channel::VMM_IVC));
}

#[test]
fn hypercall_and_smc_tell_where_links_are() {
    let mut guest = Guest::running();
    let at = guest::RAM + 0x10_0000;
    let call = |guest: &mut Guest, function: u64, address: u64| {
        guest.machine.0.borrow_mut().registers[registers::PC] = PC;
        let _ = guest.vmm.fault(0, UNKNOWN_SYSCALL, [function, address, 0, 0]);
        let state = guest.machine.0.borrow();
        assert_eq!(state.registers[registers::PC], PC + 4);
        state.registers[registers::X0] as i64
    };
    assert_eq!(call(&mut guest, links::HYPERCALL_INFO, at), 0);
    let mut bytes = [0; 56];
    guest.ram.ram().read(at, &mut bytes).unwrap();
    let wanted = links::info::Link { control: 0x0b00_0000, memory: 0x1000_0000, id: 3, irq: 64 };
    assert_eq!(bytes, links::info::encode(&[wanted]));
    for address in [0, guest::LINK_CONTROL, guest::RAM + crate::fake::RAM - 55, u64::MAX - 3] {
        assert_eq!(call(&mut guest, links::HYPERCALL_INFO, address), -14, "{address:#x}");
    }
    assert_eq!(call(&mut guest, 6, at), -1);

    guest.ram.ram().fill(at, 56, 0).unwrap();
    let mut state = guest.machine.0.borrow_mut();
    state.registers[registers::X0 + 1] = at;
    drop(state);
    let _ = guest.smc(links::SMC_INFO);
    assert_eq!(guest.machine.0.borrow().registers[registers::X0], 0);
    guest.ram.ram().read(at, &mut bytes).unwrap();
    assert_eq!(bytes, links::info::encode(&[wanted]));
}

#[test]
fn a_guest_that_does_not_run_has_no_doorbell() {
    let mut guest = Guest::running();
    let life = guest.bells.0.life.load(Ordering::Relaxed);
    assert!(links::runs(life));
    let _ = guest.vmm.fault(0, VM_FAULT, [PC, 0, 0, 0x9381_004f]); // a store to nothing
    assert_eq!(guest.vmm.phase, Phase::Stopped(false));
    assert_eq!(guest.bells.0.life.load(Ordering::Relaxed), life + 1);
    assert!(guest.machine.0.borrow().signals.contains(&channel::VMM_IVC), "the peers are to hear of it");
}

#[test]
fn a_peer_that_stops_is_seen_in_the_table_and_rings() {
    let mut guest = Guest::running();
    guest.set(GICD + 0x100 + 8, 1);
    let lives =
        |guest: &Guest| [0, 1].map(|n| crate::machine::Page::load(&guest.table, links::PEER_LIVES + 4 * n));
    let [before, own] = lives(&guest);
    assert_eq!(own, guest.bells.0.life.load(Ordering::Relaxed));
    guest.bells.1.lives[0][0].store(before.wrapping_add(1), Ordering::Release);
    let _ = guest.vmm.notified(1 << channel::VMM_IVC);
    assert_eq!(lives(&guest), [before.wrapping_add(1), own]);
    assert_eq!(guest.machine.0.borrow().injected.iter().map(|i| i.intid).collect::<Vec<_>>(), [64]);
}

/// Stage 2 makes other peers' output sections read-only; a bus that refuses a store would answer so.
#[test]
fn a_store_to_another_peers_section_is_an_abort_in_the_guest() {
    const PERMISSION: u64 = 0x9200_004f;
    let section = guest::LINK_MEMORY + 0x2000;
    // With a syndrome, without one (a pair), from EL0.
    for (esr, pstate, pc, class) in [
        (PERMISSION | 1 << 24, 0x3c5, 0x200, 0x25),
        (PERMISSION, 0x5, 0x200, 0x25),
        (PERMISSION, 0, 0x400, 0x24),
    ] {
        let mut guest = Guest::running();
        guest.machine.0.borrow_mut().registers[..3].copy_from_slice(&[PC, 7, pstate]);
        assert_eq!(guest.vmm.fault(0, VM_FAULT, [PC, section, 0, esr]), Next::Receive);
        let state = guest.machine.0.borrow();
        assert_eq!(state.registers[..3], [pc, 7, 0x3c5]);
        let field = |wanted| state.fields.iter().find(|(field, _)| *field == wanted).map(|(_, value)| *value);
        assert_eq!(field(Field::Esr), Some(class << 26 | 1 << 25 | 1 << 10 | 1 << 6 | 0x10));
        assert_eq!((field(Field::Elr), field(Field::Spsr)), (Some(PC), Some(pstate)));
        drop(state);
        assert_eq!(guest.vmm.phase, Phase::Running);
        assert!(guest.log().contains("external abort"));
    }
    // Behind the link's memory there is nothing, whatever kind of fault it is.
    let mut guest = Guest::running();
    let _ = guest.vmm.fault(0, VM_FAULT, [PC, section + 0x2_0000, 0, PERMISSION | 1 << 24]);
    assert_eq!(guest.vmm.phase, Phase::Stopped(false));
}
