//! The console: one UART for the consoles of all guests and the log lines of all PDs.
//!
//! Everything but the wiring to seL4 is here and runs on the host: [`mux`] decides what goes out next and where typed bytes
//! go, [`pl011`] drives the UART behind the trait [`uart::Uart`], [`keys`] knows `Ctrl-]`.
//!
//! What the user is promised:
//! - The guest in front is never lost a byte of output: when the UART is slower than the guest, the guest's ring fills up
//!   and the guest waits. A guest in the background never waits: its output goes to a [`scrollback`] of bounded size that
//!   is shown when it comes to the front, with a count of what was too old to be kept. One who comes back to a console
//!   also sees the last lines that he saw before.
//! - The management shell (`Ctrl-] 0`) is one more console, of the supervisor.
//! - Log lines start at the beginning of a line and carry the name of their PD. Control characters in them are not passed
//!   on: a PD (or a guest through its VMM) cannot speak to the user's terminal that way.
//! - Typed bytes wait for a guest that is slow to read ([`ahead`]), up to a bound; what is more is dropped and counted. Nothing
//!   that is typed waits before `Ctrl-]` is seen, so that always works.
#![cfg_attr(not(test), no_std)]

pub mod ahead;
pub mod keys;
pub mod lines;
pub mod mux;
pub mod pl011;
pub mod scrollback;
pub mod stage;
pub mod uart;
