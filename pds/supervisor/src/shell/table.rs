//! Plain tables: columns as wide as what is in them, two spaces apart. Without an allocator, so each row is made twice.

use core::fmt::{self, Write};

/// A column's title, and whether what is in it goes to the right (numbers do).
pub struct Column<'a> {
    title: &'a str,
    right: bool,
}

/// Text.
pub const fn text(title: &str) -> Column<'_> {
    Column { title, right: false }
}

/// Numbers.
pub const fn number(title: &str) -> Column<'_> {
    Column { title, right: true }
}

/// Counts the characters written to it.
struct Width(usize);

impl Write for Width {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}

/// Writes a title line, then a line for each of `rows`. `cell(row, column, out)` writes one field, the same each time.
pub fn write<const COLUMNS: usize, R>(
    out: &mut dyn Write,
    columns: &[Column<'_>; COLUMNS],
    rows: &[R],
    cell: impl Fn(&R, usize, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    let width = |row: &R, column: usize| {
        let mut width = Width(0);
        cell(row, column, &mut width).map(|()| width.0)
    };
    let mut widths = [0; COLUMNS];
    for (n, (most, column)) in widths.iter_mut().zip(columns).enumerate() {
        *most = column.title.chars().count();
        for row in rows {
            *most = (*most).max(width(row, n)?);
        }
    }
    let last = COLUMNS.saturating_sub(1);
    for row in core::iter::once(None).chain(rows.iter().map(Some)) {
        for (n, (most, column)) in widths.iter().zip(columns).enumerate() {
            let used = match row {
                None => column.title.chars().count(),
                Some(row) => width(row, n)?,
            };
            let pad = most.saturating_sub(used);
            let (before, after) = if column.right { (pad, 0) } else { (0, pad) };
            write!(out, "{:before$}", "")?;
            match row {
                None => out.write_str(column.title)?,
                Some(row) => cell(row, n, out)?,
            }
            if n != last {
                write!(out, "{:after$}  ", "")?;
            }
        }
        out.write_str("\n")?;
    }
    Ok(())
}

/// Bytes with a unit: four digits at most.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["", "K", "M", "G", "T", "P", "E"];
        let (mut value, mut below) = (self.0, 0);
        for (n, unit) in units.into_iter().enumerate() {
            if value < 1024 || n + 1 == units.len() {
                let tenth = below * 10 / 1024;
                return match (value, tenth) {
                    (10.., _) | (_, 0) => write!(f, "{value}{unit}"),
                    _ => write!(f, "{value}.{tenth}{unit}"),
                };
            }
            (value, below) = (value / 1024, value % 1024);
        }
        Ok(())
    }
}

/// A time given in counts of a clock, in whole microseconds or milliseconds.
pub struct Time {
    /// Counts.
    pub counts: u64,
    /// Counts in a second.
    pub frequency: u64,
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = u128::from(self.counts);
        match counts * 1_000_000 / u128::from(self.frequency.max(1)) {
            micros @ ..1000 => write!(f, "{micros}us"),
            micros => write!(f, "{}ms", micros / 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let bytes = [0, 1023, 1024, 1536, 10 << 10, (10 << 10) + 1023, 512 << 20, 3 << 29, u64::MAX];
        let expected = ["0", "1023", "1K", "1.5K", "10K", "10K", "512M", "1.5G", "15E"];
        assert_eq!(bytes.map(|n| Bytes(n).to_string()), expected);
        let time = |counts| Time { counts, frequency: 62_500_000 }.to_string();
        assert_eq!([1 << 11, 1 << 15, 1 << 16, 1 << 17].map(time), ["32us", "524us", "1ms", "2ms"]);
        assert_eq!(Time { counts: u64::MAX, frequency: 0 }.to_string(), "18446744073709551615000ms");
    }

    #[test]
    fn columns_are_aligned() {
        let mut out = String::new();
        let rows = [("a", 1), ("bcd", 1000)];
        write(&mut out, &[text("x"), number("n"), text("y")], &rows, |row, column, out| match column {
            1 => write!(out, "{}", row.1),
            _ => out.write_str(row.0),
        })
        .unwrap();
        assert_eq!(out, "x       n  y\na       1  a\nbcd  1000  bcd\n");
    }
}
