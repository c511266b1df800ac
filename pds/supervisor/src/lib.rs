//! The supervisor: parent of all other PDs.
//!
//! It decides three things, and the logic of each runs on the host: what to say about a PD that faulted ([`fault`]), what
//! becomes of it and of guests that stop ([`lifecycle`]), and when and how the machine is switched off
//! ([`power`]).
#![cfg_attr(not(test), no_std)]

pub mod fault;
pub mod lifecycle;
pub mod power;
