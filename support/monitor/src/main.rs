//! The embedded SDK's root task: prints faults of PDs without a parent, makes passive PDs passive.
//!
//! It never replies: a PD that faulted stays as it is. A message without a fault is a passive PD's, which has finished its
//! init and waits: its scheduling context is lent by its notification from now on. The badge says who.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod target {
    use partita_monitor::{Registers, Report};
    use sel4::sys::invocation_label;
    use sel4::{BootInfoPtr, Fault, MessageInfo, Word, cap, debug_print, debug_println};
    use sel4_root_task::{Never, root_task, var};

    /// Our capabilities. Those of PDs are at a base plus the PD's index.
    const FAULTS: cap::Endpoint = cap::Endpoint::from_bits(1);
    const REPLY: cap::Reply = cap::Reply::from_bits(2);
    const PD_TCBS: Word = 10;
    const VM_TCBS: Word = 74;
    const SCHED_CONTEXTS: Word = 138;
    const NOTIFICATIONS: Word = 202;

    const MAX_PDS: usize = 63;

    type Names = [[u8; 64]; MAX_PDS];

    /// What the packer knows of the PDs.
    struct Known {
        pds: &'static Names,
        pd_count: usize,
        vms: &'static Names,
        vm_count: usize,
        stacks: &'static [Word; MAX_PDS],
    }

    #[root_task(stack_size = 0x1000)]
    fn main(_: &BootInfoPtr) -> Never {
        let known = Known {
            pds: var!(pd_names: Names = [[0; 64]; MAX_PDS]),
            pd_count: *var!(pd_names_len: u64 = 0) as usize,
            vms: var!(vm_names: Names = [[0; 64]; MAX_PDS]),
            vm_count: *var!(vm_names_len: u64 = 0) as usize,
            stacks: var!(pd_stack_bottom_addrs: [Word; MAX_PDS] = [0; MAX_PDS]),
        };
        for (base, names, count) in
            [(PD_TCBS, known.pds, known.pd_count), (VM_TCBS, known.vms, known.vm_count)]
        {
            for (slot, name) in (base..).zip(names.iter().take(count)) {
                cap::Tcb::from_bits(slot).debug_name(text(name).as_bytes());
            }
        }
        debug_println!("MON|INFO: Microkit Monitor started!");
        loop {
            let (info, badge) = FAULTS.recv(REPLY);
            let index = badge.wrapping_sub(1);
            match usize::try_from(index).ok().filter(|i| *i < known.pd_count) {
                Some(i) if info.label() == 0 => become_passive(index, name(known.pds, i)),
                Some(i) => report(&known, i, &info, badge),
                None => debug_println!("MON|ERROR: unknown/invalid badge {badge:#018x}"),
            }
        }
    }

    /// Binds a PD's scheduling context to its notification.
    fn become_passive(index: Word, name: &str) {
        sel4::with_ipc_buffer_mut(|buffer| {
            if let Some(slot) = buffer.caps_or_badges_mut().first_mut() {
                *slot = NOTIFICATIONS + index;
            }
        });
        let bind = MessageInfo::new(invocation_label::SchedContextBind.into(), 0, 1, 0);
        let answer = cap::SchedContext::from_bits(SCHED_CONTEXTS + index).call(bind);
        if answer.label() == 0 {
            debug_println!("MON|INFO: PD '{name}' is now passive!");
        } else {
            debug_println!("MON|ERROR: could not bind scheduling context to notification object");
        }
    }

    fn report(known: &Known, i: usize, info: &MessageInfo, badge: Word) {
        // Before anything else uses the message registers.
        let (fault, words) = sel4::with_ipc_buffer(|buffer| {
            let mut words = [0; 7];
            for (word, register) in words.iter_mut().zip(buffer.msg_regs()) {
                *word = *register;
            }
            (Fault::new(buffer, info), words)
        });
        let (label, tcb) = (info.label(), PD_TCBS + i as Word);
        debug_print!("MON|ERROR: received message {label:#010x}  badge: {badge:#018x}");
        debug_println!("  tcb cap: {tcb:#018x}");
        debug_println!("MON|ERROR: faulting PD: {}", name(known.pds, i));
        match cap::Tcb::from_bits(tcb).tcb_read_all_registers(false) {
            Ok(context) => {
                // The last two words of the answer, which the context has no names for.
                let thread_pointers = sel4::with_ipc_buffer(|buffer| match buffer.msg_regs().get(34..36) {
                    Some(&[tpidr, tpidrro]) => [tpidr, tpidrro],
                    _ => [0; 2],
                });
                debug_print!("{}", Registers { context: &context, thread_pointers });
            }
            Err(error) => debug_println!("MON|ERROR: could not read its registers: {error:?}"),
        }
        let stack_bottom = known.stacks.get(i).copied().unwrap_or(0);
        debug_print!("{}", Report { fault: &fault, label, words, stack_bottom });
    }

    fn name(names: &'static Names, i: usize) -> &'static str {
        names.get(i).map_or("?", text)
    }

    /// Up to the first NUL.
    fn text(bytes: &'static [u8; 64]) -> &'static str {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("?")
    }
}
