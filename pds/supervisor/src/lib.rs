//! The supervisor: parent of all other PDs.
//!
//! It decides a few things, and the logic of each runs on the host: what to say about a PD that faulted ([`fault`]), what
//! becomes of it ([`restarts`]) and of guests that stop ([`lifecycle`]), whether a guest hangs ([`watchdog`]) or the timer does ([`silence`]), when a PD is
//! killed for a test ([`injection`]), and when and how the machine is switched off ([`power`]). Who sits at the serial line
//! tells it what to do in the management [`shell`], a guest that is manager over the management service ([`manage`]).
#![cfg_attr(not(test), no_std)]

pub mod fault;
pub mod injection;
pub mod lifecycle;
pub mod manage;
pub mod power;
pub mod restarts;
pub mod shell;
pub mod silence;
pub mod watchdog;
