//! The few shapes that the picture is made of, as SVG text.

use std::fmt::Write;

/// Where a text is held.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// At its start.
    Start,
    /// In its middle.
    Middle,
}

/// How something looks; the style sheet in [`Canvas::finish`] says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Headline.
    Title,
    /// Heading of a group.
    Heading,
    /// Heading of what breaks a rule.
    Alarm,
    /// Words.
    Plain,
    /// A name from the description.
    Name,
    /// A power over a device.
    Device,
    /// A power over more than its own.
    Warning,
    /// Box of a protection domain.
    Domain,
    /// Box of a virtual machine.
    Guest,
    /// Line of a call.
    Call,
    /// Line of a notification.
    Notify,
    /// Line from a VMM to its guest.
    Owns,
    /// Background of a row.
    Row,
    /// Background of a row that breaks a rule.
    AlarmRow,
    /// Background of a writer's cell.
    Writes,
    /// Background of a reader's cell.
    Reads,
    /// Mark of a writer.
    WriteMark,
    /// Mark of a reader.
    ReadMark,
}

impl Style {
    fn class(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

const STYLE: &str = "\
text { font: 12px 'DejaVu Sans', Verdana, sans-serif; fill: #333 }
.title { font-size: 18px; font-weight: bold; fill: #111 } .heading { font-weight: bold; fill: #111 }
.alarm { font-weight: bold; fill: #a33b00 } .name { font: 12px 'DejaVu Sans Mono', monospace; fill: #111 }
text.device { fill: #0b6157 } text.warning { fill: #a33b00; font-weight: bold }
.domain { fill: #f3f6fb; stroke: #44597c; stroke-width: 1.3 } .guest { fill: #f4fbf1; stroke: #4d7a3a; stroke-width: 1.3 }
.call { stroke: #2456a6; stroke-width: 1.5; fill: none } .notify { stroke: #9aa3b0; stroke-width: 1.1; fill: none; stroke-dasharray: 5 3 }
.owns { stroke: #4d7a3a; stroke-width: 3 } .row { fill: #f6f7f9 } .alarmrow { fill: #ffe9d6 }
.writes { fill: #2456a6 } .reads { fill: #fff; stroke: #9db4d8 }
.writemark { fill: #fff; font-weight: bold } .readmark { fill: #2456a6 }
";

/// The picture so far.
#[derive(Default)]
pub struct Canvas {
    body: String,
}

// Writing to a String cannot fail.
impl Canvas {
    /// A rectangle.
    pub fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, style: Style) {
        let class = style.class();
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="3"/>"#
        );
    }

    /// A line of text.
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, style: Style, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
        };
        let (class, text) = (style.class(), escape(text));
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    /// A name above a column.
    pub fn slanted(&mut self, x: f64, y: f64, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.body,
            r#"<text class="name" transform="translate({x:.1} {y:.1}) rotate(-50)">{text}</text>"#
        );
    }

    /// A line; that of a call has an arrow at its end.
    pub fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, style: Style) {
        let (class, arrow) = (style.class(), arrow(style));
        let _ = writeln!(
            self.body,
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"{arrow}/>"#
        );
    }

    /// A curve that hangs `depth` below its ends.
    pub fn arc(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, depth: f64, style: Style) {
        let (class, arrow) = (style.class(), arrow(style));
        let (middle, low) = ((x1 + x2) / 2.0, y1.max(y2) + 2.0 * depth);
        let _ = writeln!(
            self.body,
            r#"<path class="{class}" d="M {x1:.1} {y1:.1} Q {middle:.1} {low:.1} {x2:.1} {y2:.1}"{arrow}/>"#
        );
    }

    /// The document.
    pub fn finish(self, width: f64, height: f64) -> String {
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}">
<style>
{STYLE}</style>
<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M 0 1 L 10 5 L 0 9 z" fill="#2456a6"/></marker></defs>
<rect width="100%" height="100%" fill="#ffffff"/>
{}</svg>
"##,
            self.body
        )
    }
}

fn arrow(style: Style) -> &'static str {
    if style == Style::Call { r#" marker-end="url(#arrow)""# } else { "" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
