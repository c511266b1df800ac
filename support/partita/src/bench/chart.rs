//! The table as a bar chart: where the instructions of a request go, against bare QEMU.

use std::fmt::Write as _;

use super::table::{Row, Table};

/// Width of the names at the left.
const LEFT: f64 = 130.0;
/// Width of the longest bar.
const WIDE: f64 = 560.0;
/// Height of a job, and of a bar in it.
const JOB: f64 = 44.0;
const BAR: f64 = 14.0;
/// Above the first job.
const TOP: f64 = 56.0;

/// What a bar is made of: its colour, what it means.
const PARTS: [(&str, &str); 4] =
    [("#3b6ea5", "guest"), ("#c0504d", "kernel"), ("#e2a33c", "PDs"), ("#9aa5b1", "bare QEMU")];

/// The chart. Each job has a scale of its own: its longest bar is as wide as the others' longest.
pub fn svg(table: &Table) -> String {
    let height = TOP + JOB * table.rows.len() as f64 + 10.0;
    let width = LEFT + WIDE + 120.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">{}</text>\n",
        table.title()
    );
    for (n, (colour, name)) in PARTS.iter().enumerate() {
        let x = LEFT + 130.0 * n as f64;
        // Writing to a string does not fail.
        let _ = writeln!(text, "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        let _ = writeln!(text, "<text x=\"{}\" y=\"42\">{name}</text>", x + 18.0);
    }
    for (n, row) in table.rows.iter().enumerate() {
        job(&mut text, TOP + JOB * n as f64, row);
    }
    text + "</svg>\n"
}

fn job(text: &mut String, y: f64, row: &Row) {
    let scale = WIDE / row.ours.all.max(row.bare.all);
    let guest = row.ours.all - row.hypervisor();
    let [guest_part, kernel_part, pd_part, bare_part] = PARTS;
    let mut x = LEFT;
    let mut bar = |y: f64, x: &mut f64, amount: f64, (colour, name): (&str, &str)| {
        let width = amount.max(0.0) * scale;
        let _ = writeln!(
            text,
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"><title>{name} {amount:.0}</title></rect>"
        );
        *x += width;
    };
    for (amount, part) in [(guest, guest_part), (row.ours.kernel, kernel_part), (row.ours.pd, pd_part)] {
        bar(y, &mut x, amount, part);
    }
    let ours_end = x;
    x = LEFT;
    bar(y + BAR + 2.0, &mut x, row.bare.all, bare_part);
    let _ = writeln!(text, "<text x=\"10\" y=\"{}\">{}</text>", y + BAR + 4.0, row.job.name);
    let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{}\">{:.0}</text>", ours_end + 6.0, y + 11.0, row.ours.all);
    let label = format!("{:.0} ({:.2})", row.bare.all, row.ratio_instructions());
    let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{}\">{label}</text>", x + 6.0, y + BAR + 13.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{job::JOBS, table::tests::example};

    #[test]
    fn every_job_has_its_four_parts() {
        let text = svg(&example());
        let document = roxmltree::Document::parse(&text).unwrap();
        let bars: Vec<f64> = document
            .descendants()
            .filter(|node| {
                node.has_tag_name("rect") && node.children().any(|child| child.has_tag_name("title"))
            })
            .map(|node| node.attribute("width").unwrap().parse().unwrap())
            .collect();
        assert_eq!(bars.len(), 4 * JOBS.len());
        // 25,000 of the guest, 20,000 of seL4, 10,000 of PDs; 25,000 on bare QEMU.
        let [guest, kernel, pds, bare] = bars[..4].try_into().unwrap();
        assert!((guest + kernel + pds - WIDE).abs() < 0.3);
        assert!((kernel - 2.0 * pds).abs() < 0.2 && guest == bare);
    }
}
