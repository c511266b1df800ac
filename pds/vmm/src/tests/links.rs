use super::*;
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
    assert_eq!(guest.bells.0.running.load(Ordering::Relaxed), 1);
    let _ = guest.vmm.fault(0, VM_FAULT, [PC, 0, 0, 0x9381_004f]); // a store to nothing
    assert_eq!(guest.vmm.phase, Phase::Stopped(false));
    assert_eq!(guest.bells.0.running.load(Ordering::Relaxed), 0);
}
