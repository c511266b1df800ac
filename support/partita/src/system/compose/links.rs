//! Shared-memory links: one region for each section, so that the second stage of translation says who may write it.
//!
//! The sections are mapped into guests and nowhere else; what travels between PDs is a page of counters each way
//! ([`partita_protocol::links`]). The shared section has as many writers as the link has peers: an exception to rule 1
//! that the report lists.

use partita_config::{Cell, CellLink, Link};
use partita_protocol::{
    layout::{Service, channel, guest, size, vaddr},
    links::CONTROL_SIZE,
};

use super::{Composer, IVC, map, map_at, vmm_name};
use crate::system::model::{Map, Region};

fn shared_name(link: &Link<'_>) -> String {
    format!("link.{}.shared", link.name)
}

fn output_name(link: &Link<'_>, peer: usize) -> String {
    format!("link.{}.output.{}", link.name, link.peers.get(peer).unwrap_or(&""))
}

impl Composer<'_> {
    /// The sections of all links.
    pub(super) fn link_memory(&mut self) {
        for link in &self.config.links {
            if link.shared.0 != 0 {
                self.region(Region { name: shared_name(link), size: link.shared.0, ..Region::default() });
            }
            for peer in 0..link.peers.len() {
                self.region(Region {
                    name: output_name(link, peer),
                    size: link.output.0,
                    ..Region::default()
                });
            }
        }
    }

    /// A cell's links: control tables, which its VMM writes and the guest reads, and the sections.
    pub(super) fn guest_links(&mut self, cell: &Cell<'_>, pd: &mut Vec<Map>, guest: &mut Vec<Map>) {
        let config = self.config;
        let count = config.links_of(cell.name).count();
        if count == 0 {
            return;
        }
        let control = self.memory(format!("link_control.{}", cell.name), count * CONTROL_SIZE as usize);
        pd.push(Map { cached: false, ..map(&control, vaddr::LINK_CONTROL, "rw") });
        guest.push(Map { cached: false, ..map_at(&control, guest::LINK_CONTROL, "r") });
        for (place, CellLink { link, peer, .. }) in config.links_of(cell.name).enumerate() {
            let mut at = guest::LINK_MEMORY + place as u64 * guest::LINK_STRIDE;
            if link.shared.0 != 0 {
                guest.push(map_at(&shared_name(link), at, "rw"));
                at += link.shared.0;
            }
            for owner in 0..link.peers.len() {
                let perms = if owner == peer { "rw" } else { "r" };
                guest.push(map_at(&output_name(link, owner), at, perms));
                at += link.output.0;
            }
        }
    }

    /// Doorbells of a cell: its VMM and `ivc` write a page each.
    pub(super) fn doorbells(&mut self, n: usize, cell: &Cell<'_>) {
        if self.config.links_of(cell.name).next().is_none() {
            return;
        }
        let vmm = vmm_name(self.config, n);
        // With a virtio-vsock device the channel is there already.
        if cell.cid.is_none() {
            self.notify(&vmm, channel::VMM_IVC, IVC, channel::client(n));
        }
        let far = |own| vaddr::cell_link(n, own);
        let (rung, taken) = (vaddr::DOORBELL_TX, vaddr::DOORBELL_RX);
        self.link(format!("doorbell_tx.{}", cell.name), size::PAGE, (&vmm, rung), (IVC, far(rung)));
        self.link(format!("doorbell_rx.{}", cell.name), size::PAGE, (IVC, far(taken)), (&vmm, taken));
    }

    /// The counters of all links, for the supervisor.
    pub(super) fn link_stats(&mut self) {
        if self.config.links.is_empty() {
            return;
        }
        let far = vaddr::service_link(Service::Ivc.index(), vaddr::LINK_STATS);
        self.link("link_stats".into(), size::PAGE, (IVC, vaddr::LINK_STATS), ("supervisor", far));
    }
}
