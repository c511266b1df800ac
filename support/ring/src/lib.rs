//! Single-producer single-consumer rings and seqlock pages between PDs.
#![cfg_attr(not(test), no_std)]
