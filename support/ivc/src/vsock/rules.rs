//! Who may connect to whom, from partita.json.

use heapless::Vec;
use partita_config::{Config, HOST as HOST_NAME};
use partita_protocol::manage::port;
use partita_protocol::{MAX_CELLS, MAX_PORTS, MAX_SOCKETS};

use super::table::HOST;

#[derive(Clone, Debug)]
struct Rule {
    from: usize,
    to: usize,
    ports: Vec<u32, MAX_PORTS>,
}

/// The list.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    list: Vec<Rule, MAX_SOCKETS>,
    /// Bit `cell`: may use the management service.
    managers: u16,
}

impl Rules {
    /// Nothing is allowed but messages.
    pub const fn new() -> Self {
        Self { list: Vec::new(), managers: 0 }
    }

    /// As the description says.
    pub fn of(config: &Config<'_>) -> Self {
        let mut rules = Self::new();
        for socket in &config.sockets {
            let cell = |name| config.cell(name).map(|(n, _)| n);
            let to = if socket.to == HOST_NAME { Some(HOST) } else { cell(socket.to) };
            if let (Some(from), Some(to)) = (cell(socket.from), to) {
                // The description's list has the same capacity.
                let _ = rules.list.push(Rule { from, to, ports: socket.ports.clone() });
            }
        }
        let managers = config.cells.iter().take(MAX_CELLS).enumerate().filter(|(_, cell)| cell.manager);
        rules.managers = managers.fold(0, |set, (n, _)| set | 1 << n);
        rules
    }

    /// Allows a connection from cell `from` to cell `to` (or [`HOST`]) at `port`.
    #[cfg(test)]
    pub fn allow(mut self, from: usize, to: usize, ports: &[u32]) -> Self {
        if to == HOST && ports == [port::MANAGE] {
            self.managers |= 1 << from;
        }
        self.list.push(Rule { from, to, ports: Vec::from_slice(ports).unwrap() }).unwrap();
        self
    }

    /// Whether cell `from` may connect to `to` at `port`.
    pub fn allows(&self, from: usize, to: usize, port: u32) -> bool {
        match (to, port) {
            (HOST, port::MESSAGES) => true,
            (HOST, port::MANAGE) => self.managers & 1 << from != 0,
            _ => self.list.iter().any(|r| r.from == from && r.to == to && r.ports.contains(&port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_refused() {
        let text = br#"{"cells":[{"name":"a","memory":"16M","kernel":"k","cid":3,"manager":true},
                                 {"name":"b","memory":"16M","kernel":"k","cid":9}],
                        "sockets":[{"from":"a","to":"b","ports":[5,6]},{"from":"b","to":"host","ports":[7]}]}"#;
        let rules = Rules::of(&partita_config::parse(text).unwrap());
        let ask = |from, to, port| rules.allows(from, to, port);
        assert!(ask(0, 1, 5) && ask(0, 1, 6) && ask(1, HOST, 7));
        assert!(!ask(0, 1, 7) && !ask(1, 0, 5) && !ask(0, HOST, 7) && !ask(1, HOST, 9));
        assert!(ask(0, HOST, port::MANAGE) && !ask(1, HOST, port::MANAGE));
        assert!(ask(0, HOST, port::MESSAGES) && ask(1, HOST, port::MESSAGES));
    }
}
