//! Draws the report: build/report.svg.
//!
//! Above, the domains in layers (parents over children, virtual machines at the bottom) with their powers, and the
//! channels between them. Below, a table of all memory against all domains: who writes, who reads. Lines between boxes
//! cannot show fifty regions; a table can, and what breaks rule 1 stands out as a row.

use std::fmt::Write;

use super::{
    facts::{self, Class},
    read::{Domain, System},
    svg::{Anchor, Canvas, Style},
};

const MARGIN: f64 = 28.0;
const BOX_WIDTH: f64 = 240.0;
const BOX_GAP: f64 = 30.0;
const LINE: f64 = 16.0;
/// Between layers: room for the lines of the channels.
const LAYER_GAP: f64 = 78.0;
const NAME_WIDTH: f64 = 270.0;
const COLUMN: f64 = 34.0;
const ROW: f64 = 19.0;
const HEAD: f64 = 108.0;
const NOTE_WIDTH: f64 = 330.0;

/// Where a domain's box is.
struct Place<'a> {
    domain: &'a Domain,
    layer: usize,
    x: f64,
    y: f64,
    height: f64,
    lines: Vec<(String, Style)>,
}

impl Place<'_> {
    fn middle(&self) -> f64 {
        self.x + BOX_WIDTH / 2.0
    }

    fn bottom(&self) -> f64 {
        self.y + self.height
    }
}

/// The picture of a system.
pub fn draw(system: &System) -> String {
    let mut canvas = Canvas::default();
    let (places, layers_end, boxes_width) = place(system);
    let columns = system.domains.len() as f64;
    let table_width = NAME_WIDTH + columns * COLUMN + NOTE_WIDTH;
    let width = boxes_width.max(table_width).max(760.0) + 2.0 * MARGIN;

    canvas.text(MARGIN, 36.0, Anchor::Start, Style::Title, "What each protection domain may touch");
    let about = "Read from system.xml: what the kernel enforces. Above: domains and channels. Below: memory.";
    canvas.text(MARGIN, 56.0, Anchor::Start, Style::Plain, about);
    channel_legend(&mut canvas, width);
    for [a, b] in &system.channels {
        let at = |name: &str| places.iter().find(|place| place.domain.name == name);
        if let (Some(from), Some(to)) = (at(&a.pd), at(&b.pd)) {
            let style = if a.calls || b.calls { Style::Call } else { Style::Notify };
            let (from, to) = if b.calls { (to, from) } else { (from, to) };
            channel(&mut canvas, from, to, style);
        }
    }
    for place in &places {
        domain(&mut canvas, place);
        if place.domain.vcpus.is_some()
            && let Some(vmm) = places.iter().find(|p| Some(&p.domain.name) == place.domain.parent.as_ref())
        {
            canvas.line(vmm.middle(), vmm.bottom(), place.middle(), place.y, Style::Owns);
        }
    }
    let height = table(&mut canvas, system, layers_end + 56.0);
    canvas.finish(width, height + MARGIN)
}

/// Layers: parents above children; PDs with a virtual machine below those without; virtual machines last.
fn layer(system: &System, domain: &Domain) -> usize {
    if domain.vcpus.is_some() {
        return 3;
    }
    let has_guest = system
        .domains
        .iter()
        .any(|other| other.vcpus.is_some() && other.parent.as_ref() == Some(&domain.name));
    match (&domain.parent, has_guest) {
        (_, true) => 2,
        (Some(_), false) => 1,
        (None, false) => 0,
    }
}

fn place(system: &System) -> (Vec<Place<'_>>, f64, f64) {
    let mut places: Vec<Place<'_>> = system
        .domains
        .iter()
        .map(|domain| {
            let lines = powers(system, domain);
            let height = 30.0 + LINE * lines.len() as f64 + 6.0;
            Place { domain, layer: layer(system, domain), x: 0.0, y: 0.0, height, lines }
        })
        .collect();
    let count = |layer| places.iter().filter(|place| place.layer == layer).count();
    let widest = (0..4).map(count).max().unwrap_or(1) as f64;
    let width = widest * (BOX_WIDTH + BOX_GAP) - BOX_GAP;
    let mut y = 112.0;
    for layer in 0..4 {
        let mut members: Vec<&mut Place<'_>> = places.iter_mut().filter(|p| p.layer == layer).collect();
        if members.is_empty() {
            continue;
        }
        let tallest = members.iter().map(|place| place.height).fold(0.0, f64::max);
        let own = members.len() as f64 * (BOX_WIDTH + BOX_GAP) - BOX_GAP;
        let mut x = MARGIN + (width - own) / 2.0;
        for place in &mut members {
            (place.x, place.y, place.height) = (x, y, tallest);
            x += BOX_WIDTH + BOX_GAP;
        }
        // A virtual machine hangs right below its VMM.
        y += tallest + if layer == 2 { 34.0 } else { LAYER_GAP };
    }
    (places, y - LAYER_GAP, width)
}

/// What makes a domain powerful, a line each.
fn powers(system: &System, domain: &Domain) -> Vec<(String, Style)> {
    let mut lines = vec![(format!("priority {}", domain.priority), Style::Plain)];
    if let Some(vcpus) = domain.vcpus {
        lines.push((format!("{vcpus} vCPU{}", if vcpus == 1 { "" } else { "s" }), Style::Plain));
    }
    for map in domain.maps.iter().filter(|map| domain.vcpus.is_none() && !map.cached) {
        let region = system.regions.iter().find(|region| region.name == map.region);
        if let Some(paddr) = region.and_then(|region| region.paddr) {
            lines.push((format!("device {} {paddr:#x}", map.region), Style::Device));
        }
    }
    for (irq, trigger, _) in &domain.irqs {
        lines.push((format!("interrupt {irq} ({trigger})"), Style::Device));
    }
    if facts::has_dma(system, domain) {
        lines.push(("DMA: can reach all memory".into(), Style::Warning));
    }
    if domain.smc {
        lines.push(("secure monitor calls".into(), Style::Warning));
    }
    let children = system.domains.iter().filter(|other| other.parent.as_ref() == Some(&domain.name)).count();
    if children != 0 && domain.vcpus.is_none() && layer(system, domain) == 0 {
        lines.push((format!("parent of {children}: stops, restarts"), Style::Plain));
    }
    lines
}

fn domain(canvas: &mut Canvas, place: &Place<'_>) {
    let style = if place.domain.vcpus.is_some() { Style::Guest } else { Style::Domain };
    canvas.rectangle(place.x, place.y, BOX_WIDTH, place.height, style);
    canvas.text(place.x + 10.0, place.y + 20.0, Anchor::Start, Style::Name, &place.domain.name);
    for (n, (line, style)) in place.lines.iter().enumerate() {
        canvas.text(place.x + 10.0, place.y + 38.0 + n as f64 * LINE, Anchor::Start, *style, line);
    }
}

/// Between layers a straight line; within one an arc below the boxes.
fn channel(canvas: &mut Canvas, from: &Place<'_>, to: &Place<'_>, style: Style) {
    let spread = |a: &Place<'_>, b: &Place<'_>| {
        // The ends of many lines at one box lie apart, on the side of the other box.
        a.middle() + ((b.middle() - a.middle()) / 14.0).clamp(-BOX_WIDTH / 2.0 + 12.0, BOX_WIDTH / 2.0 - 12.0)
    };
    let (x1, x2) = (spread(from, to), spread(to, from));
    if from.layer == to.layer {
        let (y, depth) = (from.bottom(), 18.0 + (x1 - x2).abs() / 22.0);
        canvas.arc(x1, y, x2, y, depth, style);
    } else if from.layer > to.layer {
        canvas.line(x1, from.y, x2, to.bottom(), style);
    } else {
        canvas.line(x1, from.bottom(), x2, to.y, style);
    }
}

fn channel_legend(canvas: &mut Canvas, width: f64) {
    let x = width - MARGIN - 330.0;
    canvas.line(x, 72.0, x + 44.0, 72.0, Style::Call);
    canvas.text(x + 54.0, 76.0, Anchor::Start, Style::Plain, "may call (arrow) and be notified");
    canvas.line(x, 92.0, x + 44.0, 92.0, Style::Notify);
    canvas.text(x + 54.0, 96.0, Anchor::Start, Style::Plain, "may notify each other");
}

/// Memory against domains; returns where it ends.
fn table(canvas: &mut Canvas, system: &System, top: f64) -> f64 {
    canvas.text(MARGIN, top, Anchor::Start, Style::Title, "Memory");
    let mut x = MARGIN + 110.0;
    for (mark, words, step) in
        [("W", "writes and reads", 150.0), ("r", "reads", 80.0), ("x", "and executes", 0.0)]
    {
        cell(canvas, x, top - 14.0, mark);
        canvas.text(x + 26.0, top, Anchor::Start, Style::Plain, words);
        x += step;
    }
    let left = MARGIN + NAME_WIDTH;
    let head = top + HEAD;
    for (n, domain) in system.domains.iter().enumerate() {
        let x = left + (n as f64 + 0.5) * COLUMN;
        canvas.slanted(x + 2.0, head - 8.0, &domain.name);
    }
    let right = left + system.domains.len() as f64 * COLUMN;
    let mut y = head;
    for class in Class::ALL {
        let regions: Vec<_> =
            system.regions.iter().filter(|region| facts::class(system, region) == class).collect();
        if regions.is_empty() {
            continue;
        }
        let style = if class == Class::ManyWriters { Style::Alarm } else { Style::Heading };
        y += 8.0;
        canvas.text(MARGIN, y + 14.0, Anchor::Start, style, &class.title(regions.len()));
        y += 22.0;
        for region in regions {
            let background = if class == Class::ManyWriters { Style::AlarmRow } else { Style::Row };
            canvas.rectangle(MARGIN, y, right + NOTE_WIDTH - MARGIN, ROW - 1.0, background);
            canvas.text(MARGIN + 6.0, y + 13.5, Anchor::Start, Style::Name, &region.name);
            for (n, domain) in system.domains.iter().enumerate() {
                for map in domain.maps.iter().filter(|map| map.region == region.name) {
                    let mut mark = String::from(if map.perms.contains('w') { "W" } else { "r" });
                    if map.perms.contains('x') {
                        mark.push('x');
                    }
                    cell(canvas, left + (n as f64 + 0.5) * COLUMN - 11.0, y, &mark);
                }
            }
            let mut note = facts::size(region);
            if let Some(paddr) = region.paddr {
                let _ = write!(note, ", device at {paddr:#x}");
            }
            let holders: Vec<&str> = system
                .domains
                .iter()
                .filter(|domain| domain.physical.contains(&region.name))
                .map(|domain| domain.name.as_str())
                .collect();
            if !holders.is_empty() {
                let _ = write!(note, ", DMA by {}", holders.join(", "));
            }
            canvas.text(right + 12.0, y + 13.5, Anchor::Start, Style::Plain, &note);
            y += ROW;
        }
    }
    y
}

fn cell(canvas: &mut Canvas, x: f64, y: f64, mark: &str) {
    let writes = mark.starts_with('W');
    canvas.rectangle(x, y + 1.0, 22.0, ROW - 3.0, if writes { Style::Writes } else { Style::Reads });
    let style = if writes { Style::WriteMark } else { Style::ReadMark };
    canvas.text(x + 11.0, y + 13.5, Anchor::Middle, style, mark);
}
