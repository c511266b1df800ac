//! virtio-vsock: who has which context id, and who may connect to whom.

use std::{string::String, vec::Vec};

use partita_protocol::manage::port;

use super::{Problems, suggest};
use crate::{Config, HOST, Socket};

/// Ports of CID 2 that a cell needs an entry for.
const HOST_PORTS: [u32; 4] = [port::ECHO, port::DISCARD, port::CHARGEN, port::LOG];

/// Adds everything that is wrong.
pub fn check(config: &Config<'_>, problems: &mut Problems<'_>) {
    for (n, cell) in config.cells.iter().enumerate() {
        let path = format!("cells[{n}]");
        if cell.name == HOST {
            let wrong = format!("\"{HOST}\" means CID 2 in sockets");
            problems.add(format!("{path}.name"), wrong, "choose another name");
        }
        if let Some(cid) = cell.cid
            && let Some(other) = config.cells.iter().take(n).position(|other| other.cid == Some(cid))
        {
            let wrong = format!("{cid} is the cid of cells[{other}] already");
            problems.add(format!("{path}.cid"), wrong, "choose another number from 3");
        }
        if cell.manager && cell.cid.is_none() {
            let right = "a manager reaches the service by virtio-vsock: give the cell a cid";
            problems.add(format!("{path}.manager"), "the cell has no cid", right);
        }
    }
    for (n, socket) in config.sockets.iter().enumerate() {
        let path = format!("sockets[{n}]");
        end(config, &format!("{path}.from"), socket.from, false, problems);
        end(config, &format!("{path}.to"), socket.to, true, problems);
        if socket.from == socket.to {
            let right = "inside a cell no device is needed: its system connects it to itself";
            problems.add(format!("{path}.to"), "is the cell that connects", right);
        }
        let same = |other: &&Socket<'_>| other.from == socket.from && other.to == socket.to;
        if let Some(other) = config.sockets.iter().take(n).position(|other| same(&other)) {
            let wrong = format!("sockets[{other}] is from {} to {} already", socket.from, socket.to);
            problems.add(&path, wrong, "add the ports there");
        }
        ports(&path, socket, problems);
    }
}

/// One end: a cell with a context id, or CID 2.
fn end(config: &Config<'_>, path: &str, name: &str, host: bool, problems: &mut Problems<'_>) {
    if name == HOST {
        if !host {
            problems.add(path, "CID 2 opens no connections", "name the cell that connects");
        }
        return;
    }
    match config.cell(name) {
        Some((_, cell)) if cell.cid.is_some() => {}
        Some((n, _)) => {
            problems.add(path, format!("cell \"{name}\" has no cid"), format!("give cells[{n}] a cid"));
        }
        None => {
            let names: Vec<&str> =
                config.cells.iter().map(|cell| cell.name).chain(host.then_some(HOST)).collect();
            problems.add(path, format!("there is no cell \"{name}\""), suggest::sentence(name, names));
        }
    }
}

fn ports(path: &str, socket: &Socket<'_>, problems: &mut Problems<'_>) {
    for (n, port) in socket.ports.iter().enumerate() {
        let path = format!("{path}.ports[{n}]");
        if socket.ports.iter().take(n).any(|other| other == port) {
            problems.add(path, format!("{port} is there twice"), "leave one of them");
        } else if socket.to == HOST {
            host_port(path, *port, problems);
        }
    }
}

fn host_port(path: String, port: u32, problems: &mut Problems<'_>) {
    match port {
        port::MANAGE => {
            let right = "say \"manager\": true in the cell instead";
            problems.add(path, "port 1 of host is the management service", right);
        }
        port::MESSAGES => {
            let right = "remove it: every cell with a cid may connect";
            problems.add(path, "port 2 of host is open to all", right);
        }
        _ if HOST_PORTS.contains(&port) => {}
        _ => {
            let [a, b, c, d] = HOST_PORTS;
            problems.add(path, format!("host has no port {port}"), format!("it has {a}, {b}, {c} and {d}"));
        }
    }
}
