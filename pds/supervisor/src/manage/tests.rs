use super::*;
use crate::lifecycle::Order;
use crate::shell::command::tests::Fake;
use partita_ring::{AtomicU64, Header, Mine, Yours};
use proptest::prelude::*;
use serde_json::Value;
use std::{format, string::String, vec, vec::Vec};

fn link(bytes: usize) -> [Duplex<'static>; 2] {
    let data = || (0..bytes / 8).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let headers: &'static [Header; 2] = std::boxed::Box::leak([Header::new(), Header::new()].into());
    let data: &'static [Vec<AtomicU64>; 2] = std::boxed::Box::leak([data(), data()].into());
    [0, 1].map(|n| Duplex::new(Mine::new(&headers[n], &data[n]), Yours::new(&headers[1 - n], &data[1 - n])))
}

/// The answer to one request of a cell, checked to be JSON of a bounded size.
fn ask(system: &mut Fake, cell: usize, request: &str) -> Value {
    let mut answer = Answer::new();
    answer_to(&Line { cell, session: 5, request: request.as_bytes() }, system, &mut answer);
    assert!(answer.text().len() <= ANSWER_MAX && !answer.text().contains('\n'));
    serde_json::from_str(answer.text()).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn error(system: &mut Fake, request: &str) -> String {
    let answer = ask(system, 0, request);
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"].as_str().unwrap().into()
}

#[test]
fn orders_are_given_by_managers_only() {
    let mut system = Fake::two();
    let answer = ask(&mut system, 0, r#"{"command":"restart","cell":"debian2","id":7}"#);
    assert_eq!(answer, serde_json::json!({ "id": 7, "ok": true }));
    assert_eq!((system.orders.clone(), system.by.clone()), (vec![(1, Order::Restart)], vec![By::Cell(0)]));
    let answer = ask(&mut system, 1, r#"{"command":"restart","cell":"debian1","id":8}"#);
    assert_eq!(
        answer["error"],
        "debian2 may not manage: its cell in partita.json does not say \"manager\": true"
    );
    assert_eq!((&answer["ok"], &answer["id"]), (&Value::from(false), &Value::from(8)));
    assert_eq!((system.orders.len(), system.said.clone()), (1, vec![String::from("1 refused restart")]));
    ask(&mut system, 0, r#"{"command":"shutdown"}"#);
    assert!(system.off);
}

#[test]
fn mistakes_name_the_place_and_what_would_be_right() {
    let mut system = Fake::two();
    for (request, expected) in [
        ("{}", "\"command\" is missing: the name of a command, such as \"cells\"; \"help\" lists them"),
        (r#"{"command":"cells","type":"bye"}"#, "\"command\" and \"type\" exclude each other"),
        (
            r#"{"command":"strat"}"#,
            "there is no command strat; did you mean start? (help lists all commands)",
        ),
        (r#"{"command":"start"}"#, "start takes the name of one cell in \"cell\", and no \"text\""),
        (r#"{"command":"start","cell":"debain1"}"#, "there is no cell debain1; did you mean debian1?"),
        (
            r#"{"command":"start","cell":"debian1","text":"x"}"#,
            "start takes the name of one cell in \"cell\", and no \"text\"",
        ),
        (
            r#"{"command":"start","text":"debian1"}"#,
            "start takes the name of one cell in \"cell\", and no \"text\"",
        ),
        (r#"{"command":"cells","cell":"debian1"}"#, "cells stands alone: without \"cell\" and \"text\""),
        (
            r#"{"command":"stats","text":"x"}"#,
            "stats takes the name of one cell in \"cell\", or none for all, and no \"text\"",
        ),
        (
            r#"{"command":"send","cell":"debian1"}"#,
            "send takes the name of one cell in \"cell\" and what to tell it in \"text\"",
        ),
        (
            r#"{"command":"send","text":"x"}"#,
            "send takes the name of one cell in \"cell\" and what to tell it in \"text\"",
        ),
        (
            r#"{"command":"broadcast","cell":"debian1","text":"x"}"#,
            "broadcast takes what to tell in \"text\", and no \"cell\"",
        ),
        (
            r#"{"command":"broadcast","cell":"debian1"}"#,
            "broadcast takes what to tell in \"text\", and no \"cell\"",
        ),
        (r#"{"comand":"cells"}"#, "\"comand\" is no key of a request; did you mean \"command\"?"),
        (
            r#"{"type":"alive"}"#,
            "\"seq\" is missing: 1 in the first \"alive\" of a stream, one more in each that follows",
        ),
    ] {
        assert_eq!(error(&mut system, request), expected, "{request}");
    }
    assert!(system.orders.is_empty() && !system.off);
}

#[test]
fn every_command_of_the_shell_is_here_too() {
    let mut system = Fake::two();
    use crate::shell::command::{Argument, COMMANDS};
    // But for those on PDs, which are for who sits at the machine.
    for command in COMMANDS.iter().filter(|command| !matches!(command.argument, Argument::Shell(_))) {
        let mut request = serde_json::json!({ "command": command.name, "id": 1 });
        if matches!(command.argument.shown(), "NAME" | "NAME TEXT") {
            request["cell"] = "debian1".into();
        }
        if command.argument.shown().ends_with("TEXT") {
            request["text"] = "a \"quoted\" text".into();
        }
        let answer = ask(&mut system, 0, &request.to_string());
        assert_eq!(answer["ok"], true, "{answer}");
    }
}

#[test]
fn tables_have_the_documented_fields() {
    let manual = include_str!("../../../../docs/management.md");
    let mut system = Fake::two();
    for (command, list) in [
        ("cells", "cells"),
        ("disks", "disks"),
        ("stats", "cells"),
        ("help", "commands"),
        ("links", "links"),
        ("sockets", "sockets"),
        ("services", "services"),
    ] {
        let answer = ask(&mut system, 0, &format!(r#"{{"command":"{command}"}}"#));
        let first = &answer[list][0];
        for key in first.as_object().unwrap().keys().chain(answer.as_object().unwrap().keys()) {
            assert!(manual.contains(&format!("`{key}`")), "docs/management.md does not explain {key}");
        }
    }
    let cells = ask(&mut system, 0, r#"{"command":"cells"}"#);
    assert_eq!(
        cells["cells"][1],
        serde_json::json!({"cell":"debian2","console":2,"state":"off","vcpus":1,"vcpus_on":0,"memory":536870912u64,
            "epoch":12,"exits":4551,"ended_by":"power-off"})
    );
    let stats = ask(&mut system, 0, r#"{"command":"stats","cell":"debian2"}"#);
    assert_eq!(
        (&stats["cells"][0]["exits"], &stats["cells"][0]["counters"]["injected"]),
        (&107.into(), &12345.into())
    );
    assert_eq!(stats["cells"].as_array().unwrap().len(), 1);
    let links = ask(&mut system, 0, r#"{"command":"links"}"#);
    assert_eq!(links["links"].as_array().unwrap().len(), 5);
    assert_eq!(
        links["links"][3],
        serde_json::json!({"link":"wide","id":7,"peer":1,"cell":"debian2","shared":8192,"output":262144,
            "rung":1001,"refused":1,"delivered":900,"dropped":10})
    );
    let disks = ask(&mut system, 0, r#"{"command":"disks"}"#);
    assert_eq!(disks["latency_ns"][0], 32768);
    assert_eq!(
        disks["disks"][0]["latency"].as_array().unwrap().len(),
        disks["latency_ns"].as_array().unwrap().len() + 1
    );
}

#[test]
fn long_lists_come_in_parts() {
    let mut system = Fake::full();
    for (command, list, expected) in [("disks", "disks", 36), ("stats", "cells", 9), ("cells", "cells", 9)] {
        let (mut from, mut seen, mut parts) = (0, Vec::new(), 0);
        loop {
            let answer = ask(&mut system, 0, &format!(r#"{{"command":"{command}","from":{from}}}"#));
            seen.extend(answer[list].as_array().unwrap().iter().cloned());
            parts += 1;
            match answer["more"].as_u64() {
                Some(more) => {
                    assert!(more > from, "it goes on");
                    from = more;
                }
                None => break,
            }
        }
        assert_eq!(seen.len(), expected, "{command}");
        assert!(seen.iter().zip(seen.iter().skip(1)).all(|(a, b)| a != b));
        assert_eq!(parts > 1, command == "disks", "{command} {parts}");
    }
    let beyond = ask(&mut system, 0, r#"{"command":"cells","from":18446744073709551615}"#);
    assert_eq!(beyond["cells"], serde_json::json!([]));
}

#[test]
fn the_log_goes_on_where_it_was() {
    let mut system = Fake::two();
    let all = ask(&mut system, 0, r#"{"command":"log"}"#);
    let lines: Vec<&str> =
        all["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(lines, system.log.lines().collect::<Vec<_>>());
    assert_eq!((&all["next"], &all["lost"]), (&system.log.len().into(), &0.into()));
    let from = all["next"].as_u64().unwrap();
    system.log.push_str("[console] \"new\"\n[half");
    let new = ask(&mut system, 0, &format!(r#"{{"command":"log","from":{from}}}"#));
    assert_eq!(
        (&new["lines"], &new["next"]),
        (&serde_json::json!(["[console] \"new\""]), &(from + 16).into())
    );
    let named = ask(&mut system, 0, r#"{"command":"log","cell":"debian1"}"#);
    assert_eq!(named["lines"], serde_json::json!(["[vmm_debian1] started"]));
    // Too slow: told how much is gone.
    system.log = (0..1000).map(|n| format!("[timer] line {n}\n")).collect();
    system.forgotten = 10_000;
    let (mut from, mut lines, mut lost) = (500, 0, 0);
    loop {
        let part = ask(&mut system, 0, &format!(r#"{{"command":"log","from":{from}}}"#));
        let count = part["lines"].as_array().unwrap().len();
        lost += part["lost"].as_u64().unwrap();
        lines += count;
        if count == 0 {
            break;
        }
        from = part["next"].as_u64().unwrap();
    }
    assert_eq!(lost, 9500);
    assert_eq!(lines, system.log[10_000..].lines().count() - 1);
}

#[test]
fn lines_go_both_ways_over_the_ring() {
    let [mut ours, mut ivc] = link(16 * 1024);
    let mut system = Fake::two();
    let mut exchange = |system: &mut Fake, input: &str| {
        assert!(ivc.tx.write_all(input.as_bytes()));
        while serve(&mut ours, system) == Served::More {}
        let mut out = vec![0; 16 * 1024];
        let len = ivc.rx.read(&mut out);
        String::from_utf8(out[..len].to_vec()).unwrap()
    };
    assert_eq!(exchange(&mut system, "0 77 {\"command\":\"pause\",\"cell\":\"2\"}\n"), "77 {\"ok\":true}\n");
    // A line that comes in pieces; an empty one; two that are none.
    assert_eq!(exchange(&mut system, "0 78 {\"id\":1,\"comm"), "");
    assert_eq!(
        exchange(&mut system, "and\":\"stop\",\"cell\":\"2\"}\n1 79 \n"),
        "78 {\"id\":1,\"ok\":true}\n79 {\"ok\":false,\"error\":\"a line must be one JSON object: EOF while parsing a JSON value.\"}\n"
    );
    assert_eq!(exchange(&mut system, "x\n9 1 {}\n"), "");
    assert_eq!(system.said, ["nonsense", "nonsense"]);
    // Keep-alive, also from a cell that is no manager; messages are pushed into the stream that asked.
    let hello = exchange(&mut system, "1 80 {\"type\":\"hello\"}\n");
    assert_eq!(hello, "80 {\"ok\":true,\"type\":\"welcome\",\"cell\":\"debian2\",\"next\":1,\"lost\":0}\n");
    let sent =
        exchange(&mut system, "0 77 {\"command\":\"send\",\"cell\":\"debian2\",\"text\":\"a\\\"\\u0007\"}\n");
    assert_eq!(
        sent,
        "77 {\"ok\":true,\"cells\":1}\n+80 {\"type\":\"message\",\"seq\":1,\"from\":\"shell\",\"text\":\"a\\\"\\u0007\"}\n"
    );
    let alive = exchange(
        &mut system,
        "1 80 {\"type\":\"alive\",\"seq\":1,\"got\":1}\n1 80 {\"type\":\"alive\",\"seq\":4}\n",
    );
    assert_eq!(
        alive,
        "80 {\"ok\":true,\"type\":\"alive\",\"seq\":1,\"next\":2,\"missed\":0}\n\
         80 {\"ok\":true,\"type\":\"alive\",\"seq\":4,\"next\":2,\"missed\":2}\n"
    );
    assert_eq!(system.said.last().unwrap(), "1 missed 2..=3");
    assert_eq!(system.mail.signs(1), Some(2));
    assert_eq!(exchange(&mut system, "1 80 {\"type\":\"bye\",\"id\":3}\n"), "80 {\"id\":3,\"ok\":true}\n");
    assert_eq!(system.mail.signs(1), None);
    // Longer than any line may be.
    let flood = "x".repeat(3 * RAW);
    assert_eq!(
        exchange(&mut system, &format!("{flood}\n0 81 {{\"command\":\"version\"}}\n")).lines().count(),
        1
    );
}

#[test]
fn one_event_has_a_bound_and_nothing_is_answered_without_room() {
    let [mut ours, mut ivc] = link(16 * 1024);
    let mut system = Fake::full();
    let request = "0 1 {\"command\":\"disks\"}\n";
    for _ in 0..BATCH {
        assert!(ivc.tx.write_all(request.as_bytes()));
    }
    assert_eq!(serve(&mut ours, &mut system), Served::Idle, "the ring is full of answers");
    let mut answers = 0;
    loop {
        let mut out = vec![0; 16 * 1024];
        let len = ivc.rx.read(&mut out);
        for line in out[..len].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            serde_json::from_slice::<Value>(line.strip_prefix(b"1 ").unwrap()).unwrap();
            answers += 1;
        }
        if len == 0 {
            break;
        }
        let _ = serve(&mut ours, &mut system);
    }
    assert_eq!(answers, BATCH);
    for _ in 0..BATCH + 1 {
        assert!(ivc.tx.write_all(b"0 1 {\"command\":\"version\"}\n"));
    }
    assert_eq!(serve(&mut ours, &mut system), Served::More);
}

proptest! {
    /// Whatever `ivc` and the guests write: every line that is one gets one answer, which is JSON.
    #[test]
    fn any_lines(lines in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        ("[0-3]", "(cells|disks|stats|log|help|links|version|start|send|broadcast|xyzzy)", "(\"cell\":\"[a-z0-9]{0,9}\",)?", "(\"text\":\"\\PC{0,20}\",)?", "[0-9]{1,20}")
            .prop_map(|(cell, command, name, text, from)| format!("{cell} 7 {{\"command\":\"{command}\",{name}{text}\"from\":{from}}}").into_bytes()),
        ("(hello|alive|bye)", "(\"seq\":[0-9]{1,20},)?", "[0-9]{1,20}", "(after|got)")
            .prop_map(|(kind, seq, number, key)| format!("1 8 {{\"type\":\"{kind}\",{seq}\"{key}\":{number}}}").into_bytes()),
    ], 0..12)) {
        let [mut ours, mut ivc] = link(16 * 1024);
        let mut system = Fake::full();
        for line in &lines {
            prop_assert!(ivc.tx.write_all(line) && ivc.tx.write_all(b"\n"));
            while serve(&mut ours, &mut system) == Served::More {}
            let mut out = vec![0; 16 * 1024];
            let len = ivc.rx.read(&mut out);
            let out = String::from_utf8(out[..len].to_vec()).unwrap();
            for answer in out.lines() {
                let (session, json) = answer.split_once(' ').unwrap();
                prop_assert!(session.trim_start_matches('+').parse::<u32>().is_ok());
                prop_assert!(serde_json::from_str::<Value>(json).unwrap().is_object());
            }
            let expected = line.split(|byte| *byte == b'\n').filter(|line| Line::parse(line).is_some_and(|line| line.cell < MAX_CELLS)).count();
            prop_assert_eq!(out.lines().filter(|line| !line.starts_with('+')).count(), expected);
        }
    }
}
