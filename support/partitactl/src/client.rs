//! A stream to the service: requests and answers, a JSON object a line.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

/// Port of the management service.
pub const MANAGE: u32 = 1;
/// Port of keep-alive messages.
pub const MESSAGES: u32 = 2;
/// Parts of a list that are asked for: more than the longest list has.
const PARTS: usize = 64;

/// Why it did not work.
#[derive(Debug)]
pub enum Failure {
    /// The words make no sense.
    Usage(String),
    /// No stream, or it broke.
    Unreachable(String),
    /// The service refuses.
    Refused(String),
    /// Our own output.
    Output(io::Error),
}

impl Failure {
    /// Exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Refused(_) | Failure::Output(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Unreachable(text) | Failure::Refused(text) => f.write_str(text),
            Failure::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

/// What a stream can do beside reading and writing.
pub trait Stream: Read + Write {
    /// How long a read waits.
    fn patience(&self, time: Duration) -> io::Result<()>;
    /// A second handle, to write by.
    fn another(&self) -> io::Result<Box<dyn Stream>>;
}

impl Stream for VsockStream {
    fn patience(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn another(&self) -> io::Result<Box<dyn Stream>> {
        let fd = self.as_fd().try_clone_to_owned()?;
        Ok(Box::new(VsockStream::from(fd)))
    }
}

/// A stream to the service.
pub struct Client {
    input: BufReader<Box<dyn Stream>>,
    output: Box<dyn Stream>,
    /// Part of a line.
    begun: Vec<u8>,
    id: u64,
    wait: Duration,
}

impl Client {
    /// Connects to a port of the host's side.
    pub fn connect(port: u32, wait: Duration) -> Result<Self, Failure> {
        let stream = VsockStream::connect(&VsockAddr::new(VMADDR_CID_HOST, port)).map_err(|error| {
            let why = match (error.raw_os_error(), port) {
                // ECONNRESET
                (Some(104), MANAGE) => " (does this guest's cell in partita.json say \"manager\": true?)",
                // ENODEV, EAFNOSUPPORT
                (Some(19 | 97), _) => " (this guest has no virtio-vsock device: give its cell a \"cid\")",
                _ => "",
            };
            Failure::Unreachable(format!("cannot connect to port {port} of the host's side: {error}{why}"))
        })?;
        Self::over(Box::new(stream), wait)
    }

    /// Over a stream that is connected.
    pub fn over(stream: Box<dyn Stream>, wait: Duration) -> Result<Self, Failure> {
        let output = stream.another().map_err(broken)?;
        Ok(Client { input: BufReader::new(stream), output, begun: Vec::new(), id: 0, wait })
    }

    /// Sends one object.
    pub fn send(&mut self, object: &Map<String, Value>) -> Result<(), Failure> {
        let mut line = Value::from(object.clone()).to_string();
        line.push('\n');
        self.output.write_all(line.as_bytes()).and_then(|()| self.output.flush()).map_err(broken)
    }

    /// The next object, or `None` if none comes in time.
    pub fn receive(&mut self, within: Duration) -> Result<Option<Value>, Failure> {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.input.get_ref().patience(left).map_err(broken)?;
            match self.input.read_until(b'\n', &mut self.begun) {
                Ok(0) => return Err(Failure::Unreachable("the service closed the connection".into())),
                Ok(_) if self.begun.ends_with(b"\n") => {
                    let line = std::mem::take(&mut self.begun);
                    let object = serde_json::from_slice(&line).map_err(|error| {
                        let line = String::from_utf8_lossy(&line);
                        Failure::Unreachable(format!("the service said what is no JSON ({error}): {line}"))
                    })?;
                    return Ok(Some(object));
                }
                Ok(_) => return Err(Failure::Unreachable("the service closed the connection".into())),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    // What was read so far stays in `begun`.
                    if error.kind() == io::ErrorKind::Interrupted || Instant::now() >= end {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// Sends a request and waits for its answer. `Refused` if the service says no.
    pub fn ask(&mut self, request: &Map<String, Value>) -> Result<Value, Failure> {
        self.id += 1;
        let mut request = request.clone();
        request.insert("id".into(), self.id.into());
        self.send(&request)?;
        let end = Instant::now() + self.wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(answer) = self.receive(left)? else {
                if left.is_zero() {
                    let wait = self.wait.as_secs();
                    return Err(Failure::Unreachable(format!("the service has not answered in {wait} s")));
                }
                continue;
            };
            if answer["id"] != self.id && !(answer["ok"] == false && answer.get("id").is_none()) {
                continue;
            }
            return match answer["ok"].as_bool() {
                Some(true) => Ok(answer),
                _ => Err(Failure::Refused(
                    answer["error"].as_str().unwrap_or("refused without a reason").into(),
                )),
            };
        }
    }

    /// Like [`Client::ask`], but for all parts of a list.
    pub fn ask_all(&mut self, mut request: Map<String, Value>) -> Result<Value, Failure> {
        let mut whole = self.ask(&request)?;
        for _ in 0..PARTS {
            let Some(more) = whole.as_object_mut().and_then(|whole| whole.remove("more")) else { break };
            request.insert("from".into(), more);
            let mut part = self.ask(&request)?;
            let (Some(whole), Some(part)) = (whole.as_object_mut(), part.as_object_mut()) else { break };
            for (key, value) in part {
                match (whole.get_mut(key), value) {
                    (Some(Value::Array(list)), Value::Array(rest)) if key != "latency_ns" => {
                        list.append(rest)
                    }
                    (None, value) => {
                        whole.insert(key.clone(), value.take());
                    }
                    _ => {}
                }
            }
        }
        Ok(whole)
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::Unreachable(format!("the connection broke: {error}"))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    impl Stream for UnixStream {
        fn patience(&self, time: Duration) -> io::Result<()> {
            self.set_read_timeout(Some(time))
        }

        fn another(&self) -> io::Result<Box<dyn Stream>> {
            Ok(Box::new(self.try_clone()?))
        }
    }

    /// A client of a service that answers each line by what `answer` says to it.
    pub fn with_service(answer: impl Fn(&Value) -> Vec<String> + Send + 'static) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut output = theirs.try_clone().unwrap();
            for line in BufReader::new(theirs).lines() {
                let Ok(line) = line else { return };
                for line in answer(&serde_json::from_str(&line).unwrap()) {
                    if output.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        Client::over(Box::new(ours), Duration::from_secs(60)).unwrap()
    }

    fn request(command: &str) -> Map<String, Value> {
        Map::from_iter([("command".to_owned(), Value::from(command))])
    }

    #[test]
    fn an_answer_is_known_by_its_id() {
        let mut client = with_service(|request| {
            let id = request["id"].as_u64().unwrap();
            vec![
                "{\"type\":\"message\",\"seq\":1}\n".into(),
                format!("{{\"id\":{},\"ok\":true,\"old\":1}}\n{{\"id\":{id},", id - 1),
                "\"ok\":true,\"new\":2}\n".into(),
            ]
        });
        assert_eq!(client.ask(&request("cells")).unwrap()["new"], 2);
    }

    #[test]
    fn refusals_and_nonsense_are_failures() {
        let mut client = with_service(|request| match request["command"].as_str().unwrap() {
            "a" => vec![format!("{{\"id\":{},\"ok\":false,\"error\":\"no\"}}\n", request["id"])],
            "b" => vec!["{\"ok\":false,\"error\":\"what?\"}\n".into()],
            _ => vec!["nonsense\n".into()],
        });
        let said = |client: &mut Client, command: &str| {
            let failure = client.ask(&request(command)).unwrap_err();
            (failure.status(), failure.to_string())
        };
        assert_eq!(said(&mut client, "a"), (1, "no".into()));
        assert_eq!(said(&mut client, "b"), (1, "what?".into()));
        let (status, text) = said(&mut client, "c");
        assert!(status == 3 && text.contains("no JSON") && text.contains("nonsense"), "{text}");
    }

    #[test]
    fn a_service_that_is_silent_or_gone() {
        let mut client = with_service(|_| vec![]);
        client.wait = Duration::from_millis(30);
        assert!(client.ask(&request("cells")).unwrap_err().to_string().contains("not answered"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut client = Client::over(Box::new(ours), Duration::from_secs(1)).unwrap();
        assert_eq!(client.ask(&request("cells")).unwrap_err().status(), 3);
    }

    #[test]
    fn parts_are_put_together() {
        let mut client = with_service(|request| {
            let (id, from) = (&request["id"], request["from"].as_u64().unwrap_or(0));
            let more = if from < 4 { format!(",\"more\":{}", from + 2) } else { String::new() };
            vec![format!(
                "{{\"id\":{id},\"ok\":true,\"latency_ns\":[1],\"disks\":[{from},{}]{more}}}\n",
                from + 1
            )]
        });
        let all = client.ask_all(request("disks")).unwrap();
        assert_eq!(all["disks"], serde_json::json!([0, 1, 2, 3, 4, 5]));
        assert_eq!((all["latency_ns"].as_array().unwrap().len(), all.get("more")), (1, None));
    }
}
