//! partita.json: schema, parser for host and target, validation.
#![cfg_attr(not(test), no_std)]
