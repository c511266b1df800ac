//! Answers as plain tables: columns as wide as what is in them, numbers to the right.

use std::fmt::Write;

use serde_json::Value;

/// What is shown of an answer. A service that is newer than this program may have lists that are not known here: they are
/// shown as they are.
pub fn render(command: &str, answer: &Value) -> String {
    match command {
        "cells" => cells(answer),
        "stats" => stats(answer),
        "disks" => disks(answer),
        "version" => {
            format!("Partita {}, management protocol {}\n", text(&answer["version"]), answer["protocol"])
        }
        "send" | "broadcast" => format!("sent to {} cell(s)\n", answer["cells"]),
        _ => other(answer),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        value => value.to_string(),
    }
}

/// Bytes with a unit.
fn bytes(value: &Value) -> String {
    let Some(mut rest) = value.as_f64() else { return text(value) };
    for unit in ["", "K", "M", "G", "T"] {
        if rest < 1024.0 {
            return if unit.is_empty() || rest.fract() == 0.0 || rest >= 10.0 {
                format!("{}{unit}", rest.floor())
            } else {
                format!("{rest:.1}{unit}")
            };
        }
        rest /= 1024.0;
    }
    format!("{}P", rest.floor())
}

/// Nanoseconds with a unit.
fn time(value: &Value) -> String {
    match value.as_u64().unwrap_or(0) {
        ns @ ..1_000_000 => format!("{}us", ns / 1000),
        ns => format!("{}ms", ns / 1_000_000),
    }
}

/// Rows of a table, the titles first. A column is aligned to the right if all below its title are numbers.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        rows.iter().filter_map(|row| row.get(n)).map(|field| field.chars().count()).max().unwrap_or(0)
    };
    let is_number = |field: &String| field.starts_with(|c: char| c.is_ascii_digit());
    let right = |n: usize| {
        rows.iter().skip(1).filter_map(|row| row.get(n)).all(|field| is_number(field) || field == "-")
    };
    let shape: Vec<(usize, bool)> = (0..columns).map(|n| (width(n), rows.len() > 1 && right(n))).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (field, (width, right)) in row.iter().zip(&shape) {
            let _ =
                if *right { write!(line, "{field:>width$}  ") } else { write!(line, "{field:<width$}  ") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn titles(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map_or(&[], Vec::as_slice)
}

fn cells(answer: &Value) -> String {
    let mut rows = vec![titles(&["#", "name", "state", "vCPUs", "memory", "epoch", "exits", "ended by"])];
    rows.extend(list(answer, "cells").iter().map(|cell| {
        vec![
            text(&cell["console"]),
            text(&cell["cell"]),
            text(&cell["state"]),
            format!("{}/{}", cell["vcpus_on"], cell["vcpus"]),
            bytes(&cell["memory"]),
            text(&cell["epoch"]),
            text(&cell["exits"]),
            text(&cell["ended_by"]),
        ]
    }));
    table(&rows)
}

/// A column for each cell; rows in which nothing happened are left out.
fn stats(answer: &Value) -> String {
    let cells = list(answer, "cells");
    let mut rows = vec![vec![String::new()], vec!["exits".to_owned()]];
    let names: Vec<String> = cells
        .first()
        .and_then(|cell| cell["counters"].as_object())
        .map_or(vec![], |all| all.keys().cloned().collect());
    for cell in cells {
        rows[0].push(text(&cell["cell"]));
        rows[1].push(text(&cell["exits"]));
    }
    for name in names {
        let values: Vec<&Value> = cells.iter().map(|cell| &cell["counters"][&name]).collect();
        if values.iter().any(|value| **value != 0) {
            rows.push([format!("  {name}")].into_iter().chain(values.into_iter().map(text)).collect());
        }
    }
    table(&rows)
}

fn disks(answer: &Value) -> String {
    let disks = list(answer, "disks");
    if disks.is_empty() {
        return "no cell has a disk\n".into();
    }
    let mut rows = vec![titles(&[
        "cell",
        "disk",
        "controller",
        "partition",
        "sectors",
        "mode",
        "reads",
        "writes",
        "others",
        "read",
        "written",
        "errors",
        "in flight",
    ])];
    rows.extend(disks.iter().map(|disk| {
        vec![
            text(&disk["cell"]),
            text(&disk["disk"]),
            text(&disk["controller"]),
            text(&disk["partition"]),
            text(&disk["sectors"]),
            if disk["read_only"] == true { "ro" } else { "rw" }.into(),
            text(&disk["reads"]),
            text(&disk["writes"]),
            text(&disk["others"]),
            bytes(&disk["read_bytes"]),
            bytes(&disk["written_bytes"]),
            text(&disk["errors"]),
            text(&disk["in_flight"]),
        ]
    }));
    let mut latency = vec![titles(&["cell", "disk"])];
    latency[0].extend(list(answer, "latency_ns").iter().map(|bound| format!("<{}", time(bound))));
    latency[0].push("more".into());
    latency.extend(disks.iter().map(|disk| {
        let counts = list(disk, "latency").iter().map(text);
        [text(&disk["cell"]), text(&disk["disk"])].into_iter().chain(counts).collect()
    }));
    format!(
        "{}\nlatency: requests by the time that they were with the device\n{}",
        table(&rows),
        table(&latency)
    )
}

/// Any lists of objects, one table each; other fields as `name: value`.
fn other(answer: &Value) -> String {
    let mut out = String::new();
    let fields =
        answer.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "id" | "ok"));
    for (key, value) in fields {
        match value {
            Value::Array(list) if list.is_empty() => {
                let _ = writeln!(out, "no {key}");
            }
            Value::Array(list) => {
                let names: Vec<String> = list
                    .first()
                    .and_then(Value::as_object)
                    .map_or(vec![], |first| first.keys().cloned().collect());
                let mut rows = vec![names.iter().map(|name| name.replace('_', " ")).collect()];
                rows.extend(list.iter().map(|entry| names.iter().map(|name| text(&entry[name])).collect()));
                out.push_str(&table(&rows));
            }
            value => {
                let _ = writeln!(out, "{key}: {}", text(value));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned() {
        let answer = json!({"ok": true, "cells": [
            {"cell": "debian1", "console": 1, "state": "running", "vcpus": 1, "vcpus_on": 1, "memory": 536870912, "epoch": 0, "exits": 4551},
            {"cell": "b", "console": 2, "state": "off", "vcpus": 4, "vcpus_on": 0, "memory": 1610612736, "epoch": 12, "exits": 7, "ended_by": "reset"}]});
        assert_eq!(
            render("cells", &answer),
            "\
#  name     state    vCPUs  memory  epoch  exits  ended by
1  debian1  running    1/1    512M      0   4551  -
2  b        off        0/4    1.5G     12      7  reset
"
        );
        let answer = json!({"cells": [
            {"cell": "debian1", "exits": 17, "counters": {"wfi": 10, "smc": 0}}, {"cell": "b", "exits": 107, "counters": {"wfi": 1, "smc": 0}}]});
        assert_eq!(
            render("stats", &answer),
            "       debian1    b\nexits       17  107\n  wfi       10    1\n"
        );
        assert_eq!(render("stop", &json!({"id": 1, "ok": true})), "");
        assert_eq!(render("links", &json!({"ok": true, "links": []})), "no links\n");
        assert_eq!(
            render(
                "sockets",
                &json!({"ok": true, "sockets": [{"cell": "a", "in_use": 100}, {"cell": "bcd", "in_use": 2}]})
            ),
            "cell  in use\na        100\nbcd        2\n"
        );
        assert_eq!(render("disks", &json!({"disks": []})), "no cell has a disk\n");
    }

    #[test]
    fn disks_have_a_histogram() {
        let answer = json!({"latency_ns": [32768, 2097152], "disks": [{"cell": "a", "disk": 0, "controller": "disk0",
            "partition": "root", "first": 2048, "sectors": 100, "read_only": true, "reads": 1, "writes": 2, "others": 3,
            "read_bytes": 4096, "written_bytes": 13000000, "errors": 0, "in_flight": 1, "latency": [5, 6, 7]}]});
        let out = render("disks", &answer);
        assert!(out.contains("a        0  disk0       root           100  ro        1       2       3    4K      12M       0          1\n"), "{out}");
        assert!(out.ends_with("cell  disk  <32us  <2ms  more\na        0      5     6     7\n"), "{out}");
    }
}
