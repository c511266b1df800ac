//! Signs of life to the supervisor, messages from it.
//!
//! Both are numbered. A message whose number is not the next one, or an answer that tells of a message that never came, makes
//! us ask again for what is kept; a stream that breaks is opened again and goes on behind the last message that we have.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::client::{Client, Failure, MESSAGES};

/// After the last sign of life, the silence in which nobody waits for messages any more.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(1);

/// What we have heard so far; it outlives a stream.
#[derive(Default)]
struct State {
    /// Number of the last message that we have; `None`: the service knows where we were.
    have: Option<u64>,
    /// Signs of life sent, over all streams.
    sent: u64,
}

/// Sends signs of life every so often (`None`: never) and prints messages, until told to stop.
pub fn run(every: Option<Duration>, count: Option<u64>, json: bool, wait: Duration) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::Output)?;
    }
    let mut state = State::default();
    let mut out = std::io::stdout();
    // The first connection must work; later ones are tried for ever.
    let mut client = Client::connect(MESSAGES, wait)?;
    loop {
        let mut print = |value: &Value| {
            let result = if json { writeln!(out, "{value}") } else { writeln!(out, "{}", shown(value)) };
            result.and_then(|()| out.flush()).map_err(Failure::Output)
        };
        match talk(&mut client, &mut state, every, count, &stop, &mut print) {
            Err(Failure::Unreachable(why)) => eprintln!("partitactl: {why}; connecting again"),
            result => return result,
        }
        client = loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(AGAIN);
            if let Ok(client) = Client::connect(MESSAGES, wait) {
                break client;
            }
        };
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// For people.
fn shown(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    match value["type"].as_str() {
        Some("message") => format!("message {} from {}: {}", value["seq"], text("from"), text("text")),
        Some("welcome") => format!("connected as {}, next message is {}", text("cell"), value["next"]),
        Some("lost") => format!("{} messages before {} are gone", value["count"], value["next"]),
        Some("missed") => format!("{} signs of life before {} did not arrive", value["count"], value["seq"]),
        _ => value.to_string(),
    }
}

fn hello(client: &mut Client, state: &State) -> Result<(), Failure> {
    let mut request = object(json!({ "type": "hello" }));
    if let Some(have) = state.have {
        request.insert("after".into(), have.into());
        request.insert("got".into(), have.into());
    }
    client.send(&request)
}

/// One stream, until it breaks or we are told to stop.
fn talk(
    client: &mut Client,
    state: &mut State,
    every: Option<Duration>,
    count: Option<u64>,
    stop: &AtomicBool,
    print: &mut dyn FnMut(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    hello(client, state)?;
    let (mut seq, mut answered) = (0u64, 0u64);
    let mut due = Instant::now();
    // Asked for and not answered yet: what comes before the welcome may be old.
    let mut asked = true;
    // The number of the next message, as far as the service has told.
    let mut next = 0;
    let mut heard = Instant::now();
    loop {
        // What was asked for again may still be on its way.
        let complete = !asked && state.have.unwrap_or(0) + 1 >= next;
        let ended = count.is_some_and(|count| state.sent >= count)
            && answered == seq
            && (complete || heard.elapsed() > LAST_WORDS);
        if stop.load(Ordering::Relaxed) || ended {
            if every.is_some() {
                client.send(&object(json!({ "type": "bye" })))?;
                // Heard, before the stream is closed.
                let _ = client.receive(Duration::from_secs(1));
            }
            return Ok(());
        }
        let mut within = Duration::from_millis(500);
        if let Some(every) = every {
            if Instant::now() >= due && count.is_none_or(|count| state.sent < count) {
                (seq, state.sent) = (seq + 1, state.sent + 1);
                let mut alive = object(json!({ "type": "alive", "seq": seq }));
                if let Some(have) = state.have {
                    alive.insert("got".into(), have.into());
                }
                client.send(&alive)?;
                due += every;
            }
            within = within.min(due.saturating_duration_since(Instant::now()));
        }
        let Some(line) = client.receive(within.max(Duration::from_millis(1)))? else { continue };
        heard = Instant::now();
        if line["ok"] == false {
            return Err(Failure::Refused(line["error"].as_str().unwrap_or("refused").into()));
        }
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        match line["type"].as_str() {
            Some("welcome") => {
                asked = false;
                let next = number("next").max(1);
                print(&line)?;
                if number("lost") > 0 {
                    print(&json!({ "type": "lost", "count": line["lost"], "next": next }))?;
                }
                state.have = Some(next - 1);
            }
            Some("message") => {
                let (have, this) = (state.have.unwrap_or(0), number("seq"));
                if this == have + 1 {
                    print(&line)?;
                    state.have = Some(this);
                    if every.is_none() && !asked {
                        acknowledge(client, this)?;
                    }
                } else if this > have && !asked {
                    hello(client, state)?;
                    asked = true;
                }
            }
            Some("alive") => {
                answered = number("seq");
                next = number("next");
                if number("missed") > 0 {
                    print(&json!({ "type": "missed", "count": line["missed"], "seq": line["seq"] }))?;
                }
                // A message that was pushed came before this answer, if it came at all.
                if number("next") > state.have.unwrap_or(0) + 1 && !asked {
                    hello(client, state)?;
                    asked = true;
                }
            }
            _ => {}
        }
    }
}

/// For one who sends nothing else that could carry it.
fn acknowledge(client: &mut Client, seq: u64) -> Result<(), Failure> {
    client.send(&object(json!({ "type": "got", "got": seq })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::with_service;

    fn run_once(client: &mut Client, state: &mut State, count: u64) -> (Vec<String>, Result<(), Failure>) {
        let mut printed = Vec::new();
        let result = talk(
            client,
            state,
            Some(Duration::from_millis(20)),
            Some(count),
            &AtomicBool::new(false),
            &mut |value| {
                printed.push(shown(value));
                Ok(())
            },
        );
        (printed, result)
    }

    /// The service loses the second push; the answer to the next sign of life tells of it.
    #[test]
    fn a_lost_push_is_asked_for_again() {
        let mut client = with_service(|request| {
            let message = |n: u64| {
                format!("{{\"type\":\"message\",\"seq\":{n},\"from\":\"shell\",\"text\":\"m{n}\"}}\n")
            };
            match (request["type"].as_str().unwrap(), request["after"].as_u64(), request["seq"].as_u64()) {
                ("hello", None, _) => {
                    vec![
                        "{\"ok\":true,\"type\":\"welcome\",\"cell\":\"a\",\"next\":5,\"lost\":0}\n".into(),
                        message(5),
                    ]
                }
                ("hello", Some(5), _) => vec![
                    "{\"ok\":true,\"type\":\"welcome\",\"cell\":\"a\",\"next\":6,\"lost\":0}\n".into(),
                    message(6),
                    message(7),
                ],
                ("alive", _, Some(seq)) => {
                    vec![format!(
                        "{{\"ok\":true,\"type\":\"alive\",\"seq\":{seq},\"next\":8,\"missed\":0}}\n"
                    )]
                }
                _ => vec!["{\"ok\":true}\n".into()],
            }
        });
        let mut state = State::default();
        let (printed, result) = run_once(&mut client, &mut state, 4);
        assert!(result.is_ok(), "{result:?}");
        let messages: Vec<&String> = printed.iter().filter(|line| line.starts_with("message")).collect();
        assert_eq!(
            messages,
            ["message 5 from shell: m5", "message 6 from shell: m6", "message 7 from shell: m7"]
        );
        assert_eq!(state.have, Some(7));
    }

    #[test]
    fn what_is_gone_is_said() {
        let mut client = with_service(|request| match request["type"].as_str().unwrap() {
            "hello" => {
                vec!["{\"ok\":true,\"type\":\"welcome\",\"cell\":\"a\",\"next\":9,\"lost\":4}\n".into()]
            }
            "alive" => vec![format!(
                "{{\"ok\":true,\"type\":\"alive\",\"seq\":{},\"next\":9,\"missed\":3}}\n",
                request["seq"]
            )],
            _ => vec!["{\"ok\":true}\n".into()],
        });
        let mut state = State { have: Some(4), sent: 0 };
        let (printed, _) = run_once(&mut client, &mut state, 1);
        assert!(printed.contains(&"4 messages before 9 are gone".into()), "{printed:?}");
        assert!(printed.contains(&"3 signs of life before 1 did not arrive".into()), "{printed:?}");
        assert_eq!(state.have, Some(8));
    }

    #[test]
    fn refusals_end_it() {
        let mut client = with_service(|_| vec!["{\"ok\":false,\"error\":\"no\"}\n".into()]);
        let (_, result) = run_once(&mut client, &mut State::default(), 1);
        assert_eq!(result.unwrap_err().to_string(), "no");
    }
}
