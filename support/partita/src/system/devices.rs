//! Passed-through devices against the board: what Partita drives itself, and what is no device.

use partita_config::Config;

use crate::{
    board::{Board, DeviceAt},
    failure::{Failure, Result},
};

/// Everything that is wrong.
///
/// # Errors
/// One line each.
pub fn check(config: &Config<'_>, board: &Board) -> Result {
    let mut driven: Vec<(String, DeviceAt)> = vec![("the console's UART".into(), board.uart)];
    for (n, controller) in config.controllers.iter().enumerate() {
        driven.push((format!("controllers[{n}] ({})", controller.name), board.controller(controller)));
    }
    let mut lines = Vec::new();
    for (n, cell) in config.cells.iter().enumerate() {
        for (d, device) in cell.passthrough.iter().enumerate() {
            let path = format!("cells[{n}].passthrough[{d}]");
            let (first, end) = (device.address.0, device.address.0.saturating_add(device.size.0));
            let overlaps = |other: u64, behind: u64| first < behind && other < end;
            for (what, at) in &driven {
                if overlaps(at.paddr, at.paddr + at.size) {
                    let at = format!("{:#x}, which Partita drives itself", at.paddr);
                    lines.push(format!("{path}.address: overlaps {what} at {at}; name another device"));
                }
            }
            for (what, other, behind) in board.not_devices {
                if overlaps(*other, *behind) {
                    lines.push(format!(
                        "{path}.address: overlaps {what} on {}; name another device",
                        board.name
                    ));
                }
            }
            for (i, irq) in device.irqs.iter().enumerate() {
                let timer = ("the timer".to_owned(), board.timer.number);
                let whose = driven.iter().map(|(what, at)| (what.clone(), at.irq.number)).chain([timer]);
                for (what, _) in whose.filter(|(_, number)| *number == irq.irq) {
                    lines.push(format!(
                        "{path}.irqs[{i}].irq: {} is the interrupt of {what}, which Partita drives itself; \
                         look for the device's own",
                        irq.irq
                    ));
                }
            }
        }
    }
    if lines.is_empty() { Ok(()) } else { Err(Failure::new(lines.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(devices: &str) -> String {
        let text = format!(
            r#"{{ "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 8 }}],
                  "cells": [{{ "name": "a", "memory": "16M", "kernel": "k", "passthrough": [{devices}] }}] }}"#
        );
        let config = partita_config::host::parse("x", &text).unwrap();
        match check(&config, Board::named("qemu_virt_aarch64").unwrap()) {
            Ok(()) => "accepted".into(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn what_the_board_has_for_others_is_refused() {
        let device = |address: &str, irq: u32| {
            let key = format!(r#""name": "d", "address": "{address}", "guest_address": "0xc000000", "#);
            sentences(&format!(r#"{{ {key} "irqs": [{{ "irq": {irq} }}] }}"#))
        };
        assert_eq!(device("0x9040000", 40), "accepted");
        let path = "cells[0].passthrough[0]";
        assert_eq!(
            device("0x9000000", 33),
            format!(
                "{path}.address: overlaps the console's UART at 0x9000000, which Partita drives itself; name another \
                 device\n{path}.irqs[0].irq: 33 is the interrupt of the console's UART, which Partita drives itself; \
                 look for the device's own"
            )
        );
        assert_eq!(
            device("0xa001000", 40),
            format!(
                "{path}.address: overlaps controllers[0] (disk0) at 0xa001000, which Partita drives itself; name \
                 another device"
            )
        );
        assert_eq!(
            device("0x8040000", 40),
            format!(
                "{path}.address: overlaps the interrupt controller, which is the kernel's on qemu_virt_aarch64; name \
                 another device"
            )
        );
        assert!(device("0x60000000", 40).contains("overlaps RAM on qemu_virt_aarch64"));
    }
}
