//! Calls to the secure monitor, for a PD with `smc="true"`.

use sel4::sys::invocation_label as label;
use sel4::{MessageInfo, Result, Word, cap, with_ipc_buffer, with_ipc_buffer_mut};

use crate::{check, slot};

/// Calls the secure monitor with x0–x7 and returns what it leaves there. The monitor's time is not the kernel's to bound.
pub fn smc(registers: [Word; 8]) -> Result<[Word; 8]> {
    with_ipc_buffer_mut(|buffer| buffer.msg_regs_mut()[..8].copy_from_slice(&registers));
    let answer =
        cap::Unspecified::from_bits(slot::SMC).call(MessageInfo::new(label::ARMSMCCall.into(), 0, 0, 8));
    check(&answer)?;
    Ok(with_ipc_buffer(|buffer| core::array::from_fn(|i| buffer.msg_regs()[i])))
}

#[cfg(test)]
mod tests {
    use sel4::fake::{Syscall, with_kernel};

    use super::*;

    #[test]
    fn eight_words_go_and_come() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[0], 7);
            assert_eq!(call.x[2..6], [1, 2, 3, 4]);
            let buffer = call.ipc_buffer.as_mut().unwrap();
            assert_eq!(buffer.msg_regs()[4..8], [5, 6, 7, 8]);
            buffer.msg_regs_mut()[4..8].fill(20);
            call.x[1] = MessageInfo::new(0, 0, 0, 8).bits();
            call.x[2..6].fill(10);
        };
        let result = with_kernel(kernel, || smc([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(result, Ok([10, 10, 10, 10, 20, 20, 20, 20]));
    }
}
