//! Invocation labels. The breakpoint invocations exist in debug configurations only and shift what follows them: that is
//! the whole difference between the two label sets.

use super::Config;

macro_rules! labels {
    ($($name:ident = $text:literal $(($debug:ident))?,)*) => {
        /// An invocation, by the name it has in `invocations_all.json`.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Invocation { $($name,)* }

        const TABLE: &[(Invocation, &str, bool)] = &[$((Invocation::$name, $text, labels!(@ $($debug)?)),)*];
    };
    (@ debug) => { true };
    (@) => { false };
}

labels! {
    UntypedRetype = "UntypedRetype",
    TcbReadRegisters = "TCBReadRegisters",
    TcbWriteRegisters = "TCBWriteRegisters",
    TcbCopyRegisters = "TCBCopyRegisters",
    TcbConfigure = "TCBConfigure",
    TcbSetPriority = "TCBSetPriority",
    TcbSetMcPriority = "TCBSetMCPriority",
    TcbSetSchedParams = "TCBSetSchedParams",
    TcbSetTimeoutEndpoint = "TCBSetTimeoutEndpoint",
    TcbSetIpcBuffer = "TCBSetIPCBuffer",
    TcbSetSpace = "TCBSetSpace",
    TcbSuspend = "TCBSuspend",
    TcbResume = "TCBResume",
    TcbBindNotification = "TCBBindNotification",
    TcbUnbindNotification = "TCBUnbindNotification",
    TcbSetBreakpoint = "TCBSetBreakpoint" (debug),
    TcbGetBreakpoint = "TCBGetBreakpoint" (debug),
    TcbUnsetBreakpoint = "TCBUnsetBreakpoint" (debug),
    TcbConfigureSingleStepping = "TCBConfigureSingleStepping" (debug),
    TcbSetTlsBase = "TCBSetTLSBase",
    TcbSetFlags = "TCBSetFlags",
    CNodeRevoke = "CNodeRevoke",
    CNodeDelete = "CNodeDelete",
    CNodeCancelBadgedSends = "CNodeCancelBadgedSends",
    CNodeCopy = "CNodeCopy",
    CNodeMint = "CNodeMint",
    CNodeMove = "CNodeMove",
    CNodeMutate = "CNodeMutate",
    CNodeRotate = "CNodeRotate",
    IrqIssueIrqHandler = "IRQIssueIRQHandler",
    IrqAckIrq = "IRQAckIRQ",
    IrqSetIrqHandler = "IRQSetIRQHandler",
    IrqClearIrqHandler = "IRQClearIRQHandler",
    DomainSetSet = "DomainSetSet",
    DomainScheduleConfigure = "DomainScheduleConfigure",
    DomainScheduleSetStart = "DomainScheduleSetStart",
    SchedControlConfigureFlags = "SchedControlConfigureFlags",
    SchedContextBind = "SchedContextBind",
    SchedContextUnbind = "SchedContextUnbind",
    SchedContextUnbindObject = "SchedContextUnbindObject",
    SchedContextConsumed = "SchedContextConsumed",
    SchedContextYieldTo = "SchedContextYieldTo",
    VSpaceCleanData = "ARMVSpaceClean_Data",
    VSpaceInvalidateData = "ARMVSpaceInvalidate_Data",
    VSpaceCleanInvalidateData = "ARMVSpaceCleanInvalidate_Data",
    VSpaceUnifyInstruction = "ARMVSpaceUnify_Instruction",
    SmcCall = "ARMSMCCall",
    PageTableMap = "ARMPageTableMap",
    PageTableUnmap = "ARMPageTableUnmap",
    PageMap = "ARMPageMap",
    PageUnmap = "ARMPageUnmap",
    PageCleanData = "ARMPageClean_Data",
    PageInvalidateData = "ARMPageInvalidate_Data",
    PageCleanInvalidateData = "ARMPageCleanInvalidate_Data",
    PageUnifyInstruction = "ARMPageUnify_Instruction",
    PageGetAddress = "ARMPageGetAddress",
    AsidControlMakePool = "ARMASIDControlMakePool",
    AsidPoolAssign = "ARMASIDPoolAssign",
    VcpuSetTcb = "ARMVCPUSetTCB",
    VcpuInjectIrq = "ARMVCPUInjectIRQ",
    VcpuReadReg = "ARMVCPUReadReg",
    VcpuWriteReg = "ARMVCPUWriteReg",
    VcpuAckVppi = "ARMVCPUAckVPPI",
    IrqIssueIrqHandlerTrigger = "ARMIRQIssueIRQHandlerTrigger",
    IrqIssueSgiSignal = "ARMIRQIssueSGISignal",
}

/// Name and label of every invocation of a configuration, in the order of the labels, which count from 1.
pub fn invocations(config: Config) -> impl Iterator<Item = (&'static str, u64)> {
    TABLE
        .iter()
        .filter(move |&&(_, _, debug)| config == Config::Debug || !debug)
        .zip(1..)
        .map(|(&(_, name, _), label)| (name, label))
}

/// This build's decoding table: entry `label - 1`.
static DECODE: [Option<Invocation>; TABLE.len()] = {
    let mut table = [None; TABLE.len()];
    let mut from = 0;
    let mut to = 0;
    while from < TABLE.len() {
        let (invocation, _, debug) = TABLE[from];
        if !debug || matches!(super::BUILD, Config::Debug) {
            table[to] = Some(invocation);
            to += 1;
        }
        from += 1;
    }
    table
};

impl Invocation {
    /// What a label means in this build.
    pub fn decode(label: u64) -> Option<Self> {
        let index = usize::try_from(label).ok()?.checked_sub(1)?;
        *DECODE.get(index)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(config: Config, name: &str) -> Option<u64> {
        invocations(config).find(|&(n, _)| n == name).map(|(_, label)| label)
    }

    #[test]
    fn labels_of_both_sets() {
        for (name, debug, release) in [
            ("UntypedRetype", 1, Some(1)),
            ("TCBUnbindNotification", 15, Some(15)),
            ("TCBSetBreakpoint", 16, None),
            ("TCBSetTLSBase", 20, Some(16)),
            ("IRQAckIRQ", 31, Some(27)),
            ("SchedContextYieldTo", 42, Some(38)),
            ("ARMSMCCall", 47, Some(43)),
            ("ARMVCPUAckVPPI", 63, Some(59)),
            ("ARMIRQIssueSGISignal", 65, Some(61)),
        ] {
            assert_eq!(label(Config::Debug, name), Some(debug), "{name}");
            assert_eq!(label(Config::Release, name), release, "{name}");
        }
    }

    #[test]
    fn decoding_is_the_reverse() {
        for (name, label) in invocations(super::super::BUILD) {
            let found = Invocation::decode(label).and_then(|i| TABLE.iter().find(|e| e.0 == i));
            assert_eq!(found.map(|e| e.1), Some(name));
        }
        assert_eq!(Invocation::decode(0), None);
        assert_eq!(Invocation::decode(66), None);
        assert_eq!(Invocation::decode(u64::MAX), None);
    }
}
