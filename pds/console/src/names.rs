//! Names of the PDs whose lines are shown.

use core::fmt::Write;
use heapless::String;
use partita_config::Config;
use partita_protocol::layout::Service;

/// A PD's name: Microkit allows 64 bytes.
pub type Name = String<64>;

fn format(arguments: core::fmt::Arguments<'_>) -> Name {
    let mut name = Name::new();
    // A name that is too long is cut, which cannot happen to one that Microkit took.
    let _ = name.write_fmt(arguments);
    name
}

/// Name of a service's PD.
pub fn service(service: Service, config: Option<&Config<'_>>) -> Name {
    match service {
        Service::Timer => format(format_args!("timer")),
        Service::Console => format(format_args!("console")),
        Service::Ivc => format(format_args!("ivc")),
        Service::Net => format(format_args!("net")),
        Service::Supervisor => format(format_args!("supervisor")),
        Service::Blk(n) => match config.and_then(|config| config.controllers.get(usize::from(n))) {
            Some(controller) => format(format_args!("blk_{}", controller.name)),
            None => format(format_args!("blk{n}")),
        },
    }
}

/// Name of a cell.
pub fn cell(n: usize, config: Option<&Config<'_>>) -> Name {
    match config.and_then(|config| config.cells.get(n)) {
        Some(cell) => format(format_args!("{}", cell.name)),
        None => format(format_args!("cell{}", n + 1)),
    }
}

/// Name of a cell's VMM.
pub fn vmm(n: usize, config: Option<&Config<'_>>) -> Name {
    format(format_args!("vmm_{}", cell(n, config)))
}
