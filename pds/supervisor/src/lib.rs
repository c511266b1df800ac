//! The supervisor: parent of all other PDs.
//!
//! It decides a few things, and the logic of each runs on the host: what to say about a PD that faulted ([`fault`]), what
//! becomes of it and of guests that stop ([`lifecycle`]), whether a guest hangs ([`watchdog`]), and when and how the machine
//! is switched off ([`power`]). Who sits at the serial line tells it what to do in the management [`shell`], a guest that is
//! manager over the management service ([`manage`]).
#![cfg_attr(not(test), no_std)]

pub mod fault;
pub mod lifecycle;
pub mod manage;
pub mod power;
pub mod shell;
pub mod watchdog;
