//! Deadlines of many clients on one comparator.
//!
//! The logic of the timer PD, which runs on the host: [`Deadlines`] knows what each client waits for, [`clock::Clock`] is
//! the hardware below. The border to the clients is `partita_protocol::timer`.
#![cfg_attr(not(test), no_std)]

pub mod clock;
mod deadlines;

pub use deadlines::{CLIENTS, Client, Clients, Deadlines};
