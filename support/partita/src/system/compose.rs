//! Decides who gets what: every region, mapping, interrupt and channel of a system.
//!
//! Rule 1 of docs/architecture.md is made here: [`Composer::link`] is the only place that maps a page into two PDs for
//! communication, and it makes exactly one of them the writer. Names of regions are words joined by dots, which names in
//! partita.json cannot contain, so two can never be the same.
//!
//! The other shared memory is guest RAM (guest, its VMM, and the backends of its disks), the register pages of virtio
//! devices (written by the VMM, read by the guest) and what nobody can write (partita.json, guest kernels, device trees).

mod links;

use partita_config::{Cell, Config, Controller, Pd as Who, Trigger, passthrough::Line};
use partita_protocol::{
    disk_stats,
    layout::{self, Service, channel, guest, priority, size, supervisor_ping, supervisor_vmm, vaddr},
    manage,
};

use super::model::{Channel, End, Map, Pd, Region, System, VirtualMachine};
use crate::board::{Board, DeviceAt, Irq};
use crate::boot_files::{BootFiles, expected_name};

/// Name of the region of the GIC's virtual CPU interface.
const GICV: &str = "gicv";
/// Stack of every PD: more than twice what the default system was seen to need in a debug build.
const STACK: u64 = 0x1_0000;
/// The VMM also keeps its devices there, the supervisor the state of all its children.
const VMM_STACK: u64 = 0x1_0000;
/// Stack of a PD that does not parse it.
const SMALL_STACK: u64 = 0x4000;
/// Name of the broker.
const IVC: &str = "ivc";
/// Name of the region and of the file with partita.json.
pub const CONFIG: &str = "partita.json";

/// Builds the system.
pub fn compose(config: &Config<'_>, board: &Board, files: &BootFiles) -> System {
    let mut composer = Composer { config, files, system: System::default() };
    composer.shared(config, board);
    composer.link_memory();
    let mut supervisor = Composer::supervisor();
    let timer = Composer::timer(board);
    let console = composer.console(board);
    let blks: Vec<Pd> =
        config.controllers.iter().enumerate().map(|(n, c)| composer.blk(board, n, c)).collect();
    let vmms: Vec<Pd> = config.cells.iter().enumerate().map(|(n, cell)| composer.vmm(n, cell)).collect();
    let ivc = config.has_ivc().then(|| composer.ivc());
    supervisor.children = [timer, console].into_iter().chain(ivc).chain(blks).chain(vmms).collect();
    composer.system.pds.push(supervisor);
    composer.pulse();

    for client in clients(config) {
        composer.common_links(&client);
    }
    composer.shell_console();
    composer.log_history();
    for (c, controller) in config.controllers.iter().enumerate() {
        composer.disk_stats(c, controller);
    }
    if config.has_ivc() {
        composer.management();
    }
    for (n, cell) in config.cells.iter().enumerate() {
        composer.guest_console(n);
        if cell.cid.is_some() {
            composer.ivc_link(n, cell);
        }
        composer.stats(n, cell);
        composer.lifecycle(n, cell);
        composer.doorbells(n, cell);
        for (c, controller) in config.controllers.iter().enumerate() {
            if cell.disks.iter().any(|disk| disk.controller == controller.name) {
                composer.disk_link(n, cell, c, controller);
            }
        }
    }
    composer.link_stats();
    composer.system
}

/// Name of a cell's RAM region.
pub fn ram_name(cell: &str) -> String {
    format!("guest_ram.{cell}")
}

/// Name of the file with a cell's device tree.
pub fn dtb_name(cell: &str) -> String {
    format!("{cell}.dtb")
}

/// Name of a cell's VMM.
fn vmm_name(config: &Config<'_>, n: usize) -> String {
    Who::Vmm(n).name(Some(config)).to_string()
}

/// Name of a controller's driver.
fn blk_name(config: &Config<'_>, n: usize) -> String {
    Who::Service(blk_service(n)).name(Some(config)).to_string()
}

/// Who uses the common services: where its links are at the service's side.
struct Client {
    pd: String,
    /// Channel id at console and timer.
    id: usize,
    /// Channel and child id at the supervisor.
    supervisor_id: usize,
    service: Option<Service>,
    cell: usize,
}

impl Client {
    fn service(pd: &str, service: Service) -> Self {
        let index = service.index();
        Self {
            pd: pd.into(),
            id: channel::service(index),
            supervisor_id: index,
            service: Some(service),
            cell: 0,
        }
    }

    fn cell(pd: String, cell: usize) -> Self {
        Self { pd, id: channel::client(cell), supervisor_id: supervisor_vmm(cell), service: None, cell }
    }

    /// Where the other side sees the page that the client has at `own`.
    fn far(&self, own: usize) -> usize {
        match self.service {
            Some(service) => vaddr::service_link(service.index(), own),
            None => vaddr::cell_link(self.cell, own),
        }
    }
}

fn blk_service(controller: usize) -> Service {
    // Capacity of the list: MAX_CONTROLLERS.
    Service::Blk(u8::try_from(controller).unwrap_or(u8::MAX))
}

fn clients(config: &Config<'_>) -> Vec<Client> {
    let mut clients = vec![
        Client::service("supervisor", Service::Supervisor),
        Client::service("timer", Service::Timer),
        Client::service("console", Service::Console),
    ];
    if config.has_ivc() {
        clients.push(Client::service(IVC, Service::Ivc));
    }
    for n in 0..config.controllers.len() {
        clients.push(Client::service(&blk_name(config, n), blk_service(n)));
    }
    for n in 0..config.cells.len() {
        clients.push(Client::cell(vmm_name(config, n), n));
    }
    clients
}

struct Composer<'a> {
    config: &'a Config<'a>,
    files: &'a BootFiles,
    system: System,
}

impl Composer<'_> {
    fn region(&mut self, region: Region) -> String {
        let name = region.name.clone();
        self.system.regions.push(region);
        name
    }

    fn memory(&mut self, name: String, size: usize) -> String {
        self.region(Region { name, size: size as u64, ..Region::default() })
    }

    /// What all use: partita.json and the device trees, which nobody can write, and the GIC's page for guests, of which each
    /// CPU has its own and the kernel switches the contents.
    fn shared(&mut self, config: &Config<'_>, board: &Board) {
        let prefill = Some(CONFIG.into());
        self.region(Region { name: "config".into(), prefill, ..Region::default() });
        let paddr = Some(board.gicv);
        self.region(Region { name: GICV.into(), size: guest::GICC_SIZE, paddr, ..Region::default() });
        for cell in &config.cells {
            let prefill = Some(dtb_name(cell.name));
            self.region(Region { name: format!("guest_dtb.{}", cell.name), prefill, ..Region::default() });
        }
    }

    /// Guest kernels and initramfs: nobody can write them, so all cells that use a file share a region. The VMM is told the
    /// file's size (`<symbol>_size`), or how large the region is where the boot loader has put it (`<symbol>_room`).
    fn guest_file(&mut self, path: &str, at: usize, symbol: &str) -> Map {
        let region = match self.files.find(path) {
            Some(file) => Region { size: file.room, paddr: Some(file.address), ..Region::default() },
            None => Region { prefill: Some(path.into()), ..Region::default() },
        };
        let files = || self.system.regions.iter().filter(|region| region.name.starts_with("guest_file."));
        let known = files().find(|known| known.prefill == region.prefill && known.paddr == region.paddr);
        let is_beside = region.paddr.is_some();
        let name = match known {
            Some(known) => known.name.clone(),
            None => {
                let name = format!("guest_file.{}", files().count());
                self.region(Region { name, large: true, ..region })
            }
        };
        if is_beside {
            Map { setvar_size: Some(format!("{symbol}_room")), ..map(&name, at, "r") }
        } else {
            sized(&name, at, &format!("{symbol}_size"))
        }
    }

    fn supervisor() -> Pd {
        Pd {
            name: "supervisor".into(),
            elf: "supervisor.elf",
            priority: priority::SUPERVISOR,
            stack: VMM_STACK,
            // To power the machine off.
            smc: true,
            maps: vec![config_map()],
            ..Pd::default()
        }
    }

    fn timer(board: &Board) -> Pd {
        Pd {
            name: "timer".into(),
            elf: "timer.elf",
            priority: priority::TIMER,
            stack: SMALL_STACK,
            id: Some(Service::Timer.index()),
            irqs: vec![(channel::DEVICE_IRQ, board.timer)],
            ..Pd::default()
        }
    }

    /// No child of the supervisor's: it has nothing that could be lost, and Microkit's monitor reports it.
    fn pulse(&mut self) {
        let pd = Pd {
            name: "pulse".into(),
            elf: "pulse.elf",
            priority: priority::PULSE,
            budget: Some((layout::PULSE_BUDGET, layout::PULSE_PERIOD)),
            stack: size::PAGE as u64,
            ..Pd::default()
        };
        self.notify(&pd.name, channel::SUPERVISOR, "supervisor", channel::PULSE);
        self.system.pds.push(pd);
    }

    fn console(&mut self, board: &Board) -> Pd {
        let device = self.device("uart".into(), board.uart);
        Pd {
            name: "console".into(),
            elf: "console.elf",
            priority: priority::SERVICE,
            stack: STACK,
            id: Some(Service::Console.index()),
            maps: vec![config_map(), device],
            irqs: vec![(channel::DEVICE_IRQ, board.uart.irq)],
            ..Pd::default()
        }
    }

    fn blk(&mut self, board: &Board, n: usize, controller: &Controller<'_>) -> Pd {
        let at = board.controller(controller);
        let device = self.device(format!("registers.{}", controller.name), at);
        let dma = self.memory(format!("dma.{}", controller.name), size::DMA);
        let inflight = self.memory(format!("inflight.{}", controller.name), size::PAGE);
        let maps = vec![
            config_map(),
            device,
            map(&dma, vaddr::DMA, "rw"),
            map(&inflight, vaddr::BLK_INFLIGHT, "rw"),
        ];
        Pd {
            name: blk_name(self.config, n),
            elf: "blk.elf",
            priority: priority::BLK,
            stack: STACK,
            id: Some(blk_service(n).index()),
            maps,
            irqs: vec![(channel::DEVICE_IRQ, at.irq)],
            paddrs: vec![("dma_paddr".into(), dma)],
            ..Pd::default()
        }
    }

    fn ivc(&mut self) -> Pd {
        let inflight = self.memory("inflight.ivc".into(), size::IVC_INFLIGHT);
        Pd {
            name: IVC.into(),
            elf: "ivc.elf",
            priority: priority::SERVICE,
            stack: STACK,
            id: Some(Service::Ivc.index()),
            maps: vec![config_map(), map(&inflight, vaddr::IVC_INFLIGHT, "rw")],
            ..Pd::default()
        }
    }

    fn device(&mut self, name: String, at: DeviceAt) -> Map {
        let name = self.region(Region { name, size: at.size, paddr: Some(at.paddr), ..Region::default() });
        Map { cached: false, ..map(&name, vaddr::DEVICE, "rw") }
    }

    fn vmm(&mut self, n: usize, cell: &Cell<'_>) -> Pd {
        let (name, size) = (ram_name(cell.name), cell.memory.0);
        let paddr = cell.memory_address.map(|address| address.0);
        let ram = Region { name, size, large: true, paddr, ..Region::default() };
        let ram = self.region(ram);
        let mut maps = vec![
            config_map(),
            Map { setvar_size: Some("guest_ram_size".into()), ..map(&ram, vaddr::GUEST_RAM, "rw") },
            self.guest_file(cell.kernel, vaddr::GUEST_KERNEL, "guest_kernel"),
        ];
        if let Some(initrd) = cell.initrd {
            maps.push(self.guest_file(initrd, vaddr::GUEST_INITRD, "guest_initrd"));
        }
        if self.files.range().is_some() {
            let prefill = Some(expected_name(cell));
            let name = format!("guest_boot.{}", cell.name);
            let expected = self.region(Region { name, prefill, ..Region::default() });
            maps.push(sized(&expected, vaddr::GUEST_BOOT, "guest_boot_size"));
        }
        maps.push(sized(&format!("guest_dtb.{}", cell.name), vaddr::GUEST_DTB, "guest_dtb_size"));
        let mut guest_maps =
            vec![map_at(&ram, guest::RAM, "rwx"), Map { cached: false, ..map_at(GICV, guest::GICC, "rw") }];
        let devices = cell.devices().count();
        if devices != 0 {
            let registers = self.memory(format!("virtio_registers.{}", cell.name), devices * size::PAGE);
            maps.push(Map { cached: false, ..map(&registers, vaddr::VIRTIO_REGISTERS, "rw") });
            guest_maps.push(Map { cached: false, ..map_at(&registers, guest::VIRTIO, "r") });
        }
        self.guest_links(cell, &mut maps, &mut guest_maps);
        for device in &cell.passthrough {
            let name = format!("passthrough.{}.{}", cell.name, device.name);
            let paddr = Some(device.address.0);
            let registers = self.region(Region { name, size: device.size.0, paddr, ..Region::default() });
            let at = device.guest_address.unwrap_or(device.address).0;
            guest_maps.push(Map { cached: false, ..map_at(&registers, at, "rw") });
        }
        let irq = |line: Line| Irq { number: line.irq, edge: line.trigger == Trigger::Edge };
        let irqs = (channel::VMM_PASSTHROUGH..).zip(cell.lines().map(irq)).collect();
        let vm = VirtualMachine {
            name: format!("guest.{}", cell.name),
            priority: cell.priority,
            budget: cell.budget_us(),
            period: cell.period_us(),
            vcpus: cell.vcpus,
            maps: guest_maps,
        };
        Pd {
            name: vmm_name(self.config, n),
            elf: "vmm.elf",
            priority: priority::VMM,
            stack: VMM_STACK,
            id: Some(supervisor_vmm(n)),
            maps,
            irqs,
            vm: Some(vm),
            ..Pd::default()
        }
    }

    /// Supervisor, console and timer: what every PD has.
    fn common_links(&mut self, client: &Client) {
        let pd = client.pd.as_str();
        if pd != "supervisor" {
            let up = End { pd: pd.into(), id: channel::SUPERVISOR, calls: true };
            self.channel(up, End { pd: "supervisor".into(), id: client.supervisor_id, calls: false });
            self.notify("supervisor", supervisor_ping(client.supervisor_id), pd, channel::PING);
            let far = client.far(vaddr::HEALTH);
            self.link(format!("health.{pd}"), size::PAGE, (pd, vaddr::HEALTH), ("supervisor", far));
        }
        if pd != "console" {
            self.notify(pd, channel::CONSOLE, "console", client.id);
            self.both_ways(client, "console", "log", [vaddr::LOG_TX, vaddr::LOG_RX], size::LOG_RING);
        }
        if pd != "timer" {
            self.notify(pd, channel::TIMER, "timer", client.id);
            let own = [vaddr::TIMER_REQUEST, vaddr::TIMER_STATE];
            self.both_ways(client, "timer", "timer", own, size::TIMER_PAGE);
        }
    }

    fn guest_console(&mut self, n: usize) {
        let client = Client::cell(vmm_name(self.config, n), n);
        let own = [vaddr::GUEST_CONSOLE_TX, vaddr::GUEST_CONSOLE_RX];
        self.both_ways(&client, "console", "guest_console", own, size::GUEST_CONSOLE_RING);
    }

    /// The management shell's line: for console one more console, whose other end is the supervisor.
    fn shell_console(&mut self) {
        let client = Client::service("supervisor", Service::Supervisor);
        let own = [vaddr::GUEST_CONSOLE_TX, vaddr::GUEST_CONSOLE_RX];
        self.both_ways(&client, "console", "shell", own, size::GUEST_CONSOLE_RING);
    }

    /// The last log lines, for the supervisor.
    fn log_history(&mut self) {
        let far = vaddr::service_link(Service::Console.index(), vaddr::LOG_HISTORY);
        let writer = ("console", vaddr::LOG_HISTORY);
        self.link("log_history".into(), size::LOG_HISTORY, writer, ("supervisor", far));
    }

    /// What the supervisor wants of a cell, and what its VMM has made of it.
    fn lifecycle(&mut self, n: usize, cell: &Cell<'_>) {
        let vmm = vmm_name(self.config, n);
        let far = |own| vaddr::cell_link(n, own);
        let (wanted, actual) = (vaddr::CELL_WANTED, vaddr::CELL_ACTUAL);
        self.link(format!("wanted.{}", cell.name), size::PAGE, ("supervisor", far(wanted)), (&vmm, wanted));
        self.link(format!("actual.{}", cell.name), size::PAGE, (&vmm, actual), ("supervisor", far(actual)));
    }

    /// The counters of a controller's driver, for the supervisor, and its orders.
    fn disk_stats(&mut self, c: usize, controller: &Controller<'_>) {
        let blk = blk_name(self.config, c);
        let far = vaddr::service_link(blk_service(c).index(), vaddr::BLK_STATS);
        let name = format!("disk_stats.{}", controller.name);
        self.link(name, disk_stats::SIZE, (&blk, vaddr::BLK_STATS), ("supervisor", far));
        let far = vaddr::service_link(blk_service(c).index(), vaddr::ORDERS);
        let name = format!("orders.{}", controller.name);
        self.link(name, size::PAGE, ("supervisor", far), (&blk, vaddr::ORDERS));
    }

    /// The counters of a VMM, for the supervisor.
    fn stats(&mut self, n: usize, cell: &Cell<'_>) {
        let vmm = vmm_name(self.config, n);
        let far = vaddr::cell_link(n, vaddr::VMM_STATS);
        self.link(format!("stats.{}", cell.name), size::PAGE, (&vmm, vaddr::VMM_STATS), ("supervisor", far));
        if let Some(map) = self.pd(&vmm).maps.last_mut() {
            map.setvar_size = Some("vmm_stats_size".into());
        }
    }

    /// The broker's counters and the ring of the management service, both with the supervisor.
    fn management(&mut self) {
        let far = |own| vaddr::service_link(Service::Ivc.index(), own);
        let (tx, rx, stats) = (vaddr::MANAGE_TX, vaddr::MANAGE_RX, vaddr::IVC_STATS);
        self.link("manage_tx.ivc".into(), manage::RING, (IVC, tx), ("supervisor", far(tx)));
        self.link("manage_rx.ivc".into(), manage::RING, ("supervisor", far(rx)), (IVC, rx));
        self.link("stats.ivc".into(), size::PAGE, (IVC, stats), ("supervisor", far(stats)));
        let orders = vaddr::ORDERS;
        self.link("orders.ivc".into(), size::PAGE, ("supervisor", far(orders)), (IVC, orders));
    }

    /// A cell's virtio-vsock device: calls, notifications, the broker's page, and the guest's RAM with its queues. No
    /// physical address: the broker has no device that it could give it to.
    fn ivc_link(&mut self, n: usize, cell: &Cell<'_>) {
        let vmm = vmm_name(self.config, n);
        let up = End { pd: vmm.clone(), id: channel::VMM_IVC, calls: true };
        self.channel(up, End { pd: IVC.into(), id: channel::client(n), calls: false });
        let far = vaddr::cell_link(n, vaddr::IVC_STATUS);
        self.link(format!("status.ivc.{}", cell.name), size::PAGE, (IVC, far), (&vmm, vaddr::IVC_STATUS));
        let seen = map(&ram_name(cell.name), vaddr::cell_ram(n), "rw");
        self.pd(IVC).maps.push(Map { setvar_size: Some(format!("guest_ram_size_{n}")), ..seen });
    }

    fn disk_link(&mut self, n: usize, cell: &Cell<'_>, c: usize, controller: &Controller<'_>) {
        let (vmm, blk) = (vmm_name(self.config, n), blk_name(self.config, c));
        let up = End { pd: vmm.clone(), id: channel::vmm_blk(c), calls: true };
        self.channel(up, End { pd: blk.clone(), id: channel::client(n), calls: false });
        let status = format!("status.{}.{}", controller.name, cell.name);
        let far = vaddr::cell_link(n, vaddr::BACKEND_STATUS);
        self.link(status, size::PAGE, (&blk, far), (&vmm, vaddr::BACKEND_STATUS + c * size::PAGE));
        let ram = ram_name(cell.name);
        let seen = map(&ram, vaddr::cell_ram(n), "rw");
        let pd = self.pd(&blk);
        pd.maps.push(Map { setvar_size: Some(format!("guest_ram_size_{n}")), ..seen });
        pd.paddrs.push((format!("guest_ram_paddr_{n}"), ram));
    }

    /// Two page sets, one written by each side. `own` is where the client has them: what it writes, what it reads.
    fn both_ways(&mut self, client: &Client, service: &str, kind: &str, own: [usize; 2], bytes: usize) {
        let pd = client.pd.as_str();
        let [writes, reads] = own;
        self.link(format!("{kind}_tx.{pd}"), bytes, (pd, writes), (service, client.far(writes)));
        self.link(format!("{kind}_rx.{pd}"), bytes, (service, client.far(reads)), (pd, reads));
    }

    /// A region that one PD writes and another reads.
    fn link(&mut self, name: String, bytes: usize, writer: (&str, usize), reader: (&str, usize)) {
        let region = self.memory(name, bytes);
        self.pd(writer.0).maps.push(map(&region, writer.1, "rw"));
        self.pd(reader.0).maps.push(map(&region, reader.1, "r"));
    }

    fn notify(&mut self, a: &str, a_id: usize, b: &str, b_id: usize) {
        let end = |pd: &str, id| End { pd: pd.into(), id, calls: false };
        self.channel(end(a, a_id), end(b, b_id));
    }

    fn channel(&mut self, a: End, b: End) {
        self.system.channels.push(Channel(a, b));
    }

    /// A PD that is known to exist: all are made before the first link.
    fn pd(&mut self, name: &str) -> &mut Pd {
        let supervisor = &mut self.system.pds[0];
        match supervisor.children.iter().position(|child| child.name == name) {
            Some(place) => &mut supervisor.children[place],
            None => supervisor,
        }
    }
}

fn map(region: &str, at: usize, perms: &'static str) -> Map {
    map_at(region, at as u64, perms)
}

fn map_at(region: &str, vaddr: u64, perms: &'static str) -> Map {
    Map { region: region.into(), vaddr, perms, cached: true, setvar_size: None, setvar_prefill_size: None }
}

fn sized(region: &str, at: usize, symbol: &str) -> Map {
    Map { setvar_prefill_size: Some(symbol.into()), ..map(region, at, "r") }
}

fn config_map() -> Map {
    sized("config", layout::vaddr::CONFIG, "config_size")
}
