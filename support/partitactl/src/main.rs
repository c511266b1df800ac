//! `partitactl`: manages a Partita system from inside a guest, over virtio-vsock.
//!
//! The supervisor does everything; this program asks it and shows what it says (docs/management.md). It is linked statically,
//! so that one file runs in any arm64 Linux guest.

mod alive;
mod client;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use serde_json::{Map, Value};

use client::{Client, Failure};

const HELP: &str = "\
Manages the Partita system that this guest runs on.

usage: partitactl [--json] COMMAND [...]

  cells, disks, links, sockets, services     what there is and what it does
  stats [NAME]                               VM exits and interrupts of one guest or all
  start, stop, pause, resume, restart NAME   a guest
  log [-f] [NAME]                            the last log lines; -f: and those that follow
  send NAME TEXT..., broadcast TEXT...       a message to a guest, or to all
  shutdown                                   stop all guests and switch the machine off
  version, commands                          of the service
  alive [--every SECONDS] [--count N]        sends signs of life, prints messages; default: every 5 s
  messages                                   prints messages only

  --json     answers as the service gives them, one object a line (of log: one string a line)
  --wait S   seconds to wait for an answer (10)

Commands are for cells with \"manager\": true in partita.json; alive and messages for every cell with a cid.
Exit status: 0 done, 1 the service says no, 2 wrong usage, 3 the service cannot be reached.
";

/// What the user wants.
struct Options {
    json: bool,
    follow: bool,
    every: Duration,
    count: Option<u64>,
    wait: Duration,
    words: Vec<String>,
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        json: false,
        follow: false,
        every: Duration::from_secs(5),
        count: None,
        wait: Duration::from_secs(10),
        words: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("json") => options.json = true,
            Short('f') | Long("follow") => options.follow = true,
            Long("every") => {
                options.every = Duration::from_secs(parser.value()?.parse::<u32>()?.max(1).into())
            }
            Long("count") => options.count = Some(parser.value()?.parse()?),
            Long("wait") => options.wait = Duration::from_secs(parser.value()?.parse::<u32>()?.max(1).into()),
            Value(word) => options.words.push(word.string()?),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) if !options.words.is_empty() => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(_)) => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("partitactl: {error}; partitactl --help tells the options");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has gone, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("partitactl: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["alive"] => alive::run(Some(options.every), options.count, options.json, options.wait),
        ["messages"] => alive::run(None, None, options.json, options.wait),
        [command, rest @ ..] => {
            let request = request(command, rest)?;
            let mut client = Client::connect(client::MANAGE, options.wait)?;
            if *command == "log" {
                return log(&mut client, request, options);
            }
            let answer = client.ask_all(request)?;
            show(command, &answer, options.json)
        }
        [] => Ok(()),
    }
}

/// The request of a command line. Names and texts are for the service to judge.
fn request(command: &str, rest: &[&str]) -> Result<Map<String, Value>, Failure> {
    let mut request = Map::new();
    // `help` is what the service calls it; here that is about this program.
    let name = if command == "commands" { "help" } else { command };
    request.insert("command".into(), name.into());
    match (command, rest) {
        (_, []) => {}
        ("broadcast", words) => {
            request.insert("text".into(), words.join(" ").into());
        }
        ("send", [cell, words @ ..]) => {
            request.insert("cell".into(), (*cell).into());
            if !words.is_empty() {
                request.insert("text".into(), words.join(" ").into());
            }
        }
        (_, [cell]) => {
            request.insert("cell".into(), (*cell).into());
        }
        _ => return Err(Failure::Usage(format!("{command} takes one name; got: {}", rest.join(" ")))),
    }
    Ok(request)
}

fn show(command: &str, answer: &Value, json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let result = if json {
        writeln!(out, "{answer}")
    } else {
        out.write_all(table::render(command, answer).as_bytes())
    };
    result.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Time between two looks at the log.
const FOLLOW: Duration = Duration::from_millis(500);
/// Lines of the log that are shown at once, as in the shell.
const LINES: usize = 24;

fn log(client: &mut Client, mut request: Map<String, Value>, options: &Options) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    // What is kept now: the end of it. Then, with `-f`, what follows.
    let (mut kept, mut following) = (Vec::new(), false);
    loop {
        let mut answer = client.ask(&request)?;
        let next = answer["next"].take();
        let lost = answer["lost"].as_u64().unwrap_or(0);
        let end = request.get("from") == Some(&next);
        request.insert("from".into(), next);
        if lost > 0 {
            kept.push(format!("({lost} bytes of the log were not kept)").into());
        }
        if let Value::Array(lines) = answer["lines"].take() {
            kept.extend(lines);
        }
        if following || end {
            let first = if following { 0 } else { kept.len().saturating_sub(LINES) };
            for line in kept.drain(..).skip(first) {
                let shown =
                    if options.json { line.to_string() } else { line.as_str().unwrap_or_default().into() };
                writeln!(out, "{shown}").map_err(Failure::Output)?;
            }
            out.flush().map_err(Failure::Output)?;
        }
        following |= end;
        if end {
            if !options.follow {
                return Ok(());
            }
            std::thread::sleep(FOLLOW);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let said = |words: &[&str]| match request(words[0], &words[1..]) {
            Ok(request) => serde_json::Value::from(request).to_string(),
            Err(failure) => failure.to_string(),
        };
        assert_eq!(said(&["cells"]), r#"{"command":"cells"}"#);
        assert_eq!(said(&["restart", "b"]), r#"{"command":"restart","cell":"b"}"#);
        assert_eq!(said(&["send", "b", "a", "\"c\""]), r#"{"command":"send","cell":"b","text":"a \"c\""}"#);
        assert_eq!(said(&["send", "b"]), r#"{"command":"send","cell":"b"}"#);
        assert_eq!(said(&["broadcast", "a", "b"]), r#"{"command":"broadcast","text":"a b"}"#);
        assert_eq!(said(&["commands"]), r#"{"command":"help"}"#);
        assert_eq!(said(&["stop", "a", "b"]), "stop takes one name; got: a b");
    }
}
