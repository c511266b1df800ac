//! `partita-pipe`: what a Linux guest does over a shared-memory link, for people and for tests.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use partita_pipe::linux::{Link, LinuxPipe};
use partita_pipe::pattern::{Checksum, Pattern};
use partita_protocol::links::runs;

/// Bytes and messages over a shared-memory link.
#[derive(Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Cli {
    /// The link: /dev/hivc<ID>
    #[arg(long, default_value_t = 0)]
    link: u32,
    /// Number of the other peer; by default the first one that is not this cell
    #[arg(long)]
    peer: Option<u32>,
    /// Seconds that one operation waits at most
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Subcommand)]
enum Command {
    /// Say what the link is
    Info,
    /// Send a file, or standard input
    Send {
        /// The file
        file: Option<PathBuf>,
    },
    /// Receive into a file, or to standard output
    Receive {
        /// The file
        file: Option<PathBuf>,
    },
    /// Send so many pseudo-random bytes and compare checksums with the other end's `sink`
    Source {
        /// Bytes; K, M and G are powers of 1024
        #[arg(value_parser = bytes)]
        bytes: u64,
    },
    /// Receive what `source` sends and answer with its checksum
    Sink,
    /// Exchange hvisor's two messages: the first sends and waits for the answer
    Hello {
        /// Which of the two: first or second
        #[arg(value_parser = ["first", "second"])]
        turn: String,
    },
    /// Ring the peer's doorbell, a number of times
    Ring {
        /// How often
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Wait for doorbells and count wake-ups until none comes for a second
    Count,
    /// Round trips of one byte
    Ping {
        /// How many
        #[arg(default_value_t = 1000)]
        count: u32,
    },
    /// Answer `ping`
    Pong,
}

fn bytes(text: &str) -> Result<u64, String> {
    let shift = match text.as_bytes().last() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        _ => 0,
    };
    let number: u64 =
        text.trim_end_matches(['K', 'M', 'G']).parse().map_err(|_| "a number of bytes, such as 64M")?;
    number.checked_mul(1 << shift).ok_or_else(|| "too many".into())
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("partita-pipe: {error}");
            // As errno, so that scripts can tell.
            ExitCode::from(error.raw_os_error().and_then(|code| code.try_into().ok()).unwrap_or(1))
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    let path = PathBuf::from(format!("/dev/hivc{}", cli.link));
    let link = Link::open(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let limit = cli.wait.map(Duration::from_secs);
    let peer = cli.peer.unwrap_or(if link.me() == 0 { 1 } else { 0 });
    let open = |link: Link| -> io::Result<LinuxPipe> {
        let mut pipe = link.pipe(peer, limit)?;
        pipe.connect()?;
        Ok(pipe)
    };
    match &cli.command {
        Command::Info => {
            let (shared, output) = link.sizes();
            println!(
                "link {}: peer {} of {}, shared {shared}, output {output}",
                link.id(),
                link.me(),
                link.peers()
            );
            for peer in (0..link.peers()).filter(|peer| *peer != link.me()) {
                let life = link.life(peer);
                let state = if runs(life) { "runs" } else { "does not run" };
                println!("peer {peer} {state}, start {}", life.div_ceil(2));
            }
            Ok(())
        }
        Command::Send { file } => {
            let mut from: Box<dyn Read> = match file {
                Some(file) => Box::new(File::open(file)?),
                None => Box::new(io::stdin().lock()),
            };
            let mut pipe = open(link)?;
            let count = copy(&mut from, &mut pipe)?;
            pipe.finish();
            // Until the other end has taken all: it answers with its own end.
            pipe.read_exact(&mut [0; 1]).or_else(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Ok(()),
                _ => Err(error),
            })?;
            eprintln!("sent {count} bytes");
            pipe.close();
            Ok(())
        }
        Command::Receive { file } => {
            let mut to: Box<dyn Write> = match file {
                Some(file) => Box::new(File::create(file)?),
                None => Box::new(io::stdout().lock()),
            };
            let mut pipe = open(link)?;
            let count = copy(&mut pipe, &mut to)?;
            to.flush()?;
            eprintln!("received {count} bytes");
            pipe.close();
            Ok(())
        }
        Command::Source { bytes } => source(open(link)?, *bytes),
        Command::Sink => sink(open(link)?),
        Command::Hello { turn } => hello(&link, peer, turn == "first", limit),
        Command::Ring { count } => {
            (0..*count).for_each(|_| link.ring(peer));
            println!("rang {count}");
            Ok(())
        }
        Command::Count => {
            let mut count = 0;
            println!("waiting");
            while link.wait(Some(if count == 0 {
                limit.unwrap_or(Duration::from_secs(60))
            } else {
                Duration::from_secs(1)
            }))? {
                count += 1;
            }
            println!("woken {count}");
            Ok(())
        }
        Command::Ping { count } => {
            let mut pipe = open(link)?;
            let begin = Instant::now();
            for _ in 0..*count {
                pipe.write_all(&[1])?;
                pipe.read_exact(&mut [0; 1])?;
            }
            println!("{count} round trips in {:.3} s", begin.elapsed().as_secs_f64());
            pipe.close();
            Ok(())
        }
        Command::Pong => {
            let mut pipe = open(link)?;
            let mut byte = [0; 1];
            let mut count = 0;
            while pipe.read(&mut byte)? != 0 {
                pipe.write_all(&byte)?;
                count += 1;
            }
            println!("answered {count}");
            pipe.close();
            Ok(())
        }
    }
}

/// Pieces that the tool handles at once.
const PIECE: usize = 64 << 10;

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let (mut buffer, mut all) = (vec![0; PIECE], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(all),
            count => {
                to.write_all(buffer.get(..count).unwrap_or_default())?;
                all += count as u64;
            }
        }
    }
}

fn source(mut pipe: LinuxPipe, bytes: u64) -> io::Result<()> {
    let (mut pattern, mut sum, mut buffer) = (Pattern::new(), Checksum::new(), vec![0; PIECE]);
    let begin = Instant::now();
    let mut left = bytes;
    while left != 0 {
        let count = left.min(PIECE as u64) as usize;
        let piece = buffer.get_mut(..count).unwrap_or_default();
        pattern.fill(piece);
        sum.add(piece);
        pipe.write_all(piece)?;
        left -= count as u64;
    }
    pipe.finish();
    let mut theirs = [0; 8];
    pipe.read_exact(&mut theirs)?;
    let theirs = u64::from_le_bytes(theirs);
    println!(
        "sent {bytes} bytes, checksum {:#018x}, in {:.2} s",
        sum.finish(),
        begin.elapsed().as_secs_f64()
    );
    pipe.close();
    if theirs != sum.finish() {
        return Err(io::Error::other(format!("the other end has checksum {theirs:#018x}")));
    }
    println!("checksums agree");
    Ok(())
}

fn sink(mut pipe: LinuxPipe) -> io::Result<()> {
    let (mut sum, mut buffer, mut all) = (Checksum::new(), vec![0; PIECE], 0);
    loop {
        match pipe.read(&mut buffer)? {
            0 => break,
            count => {
                sum.add(buffer.get(..count).unwrap_or_default());
                all += count as u64;
            }
        }
    }
    pipe.write_all(&sum.finish().to_le_bytes())?;
    println!("received {all} bytes, checksum {:#018x}", sum.finish());
    pipe.close();
    Ok(())
}

/// hvisor's demo, with our own words: a text in the output section, a doorbell, a text back.
fn hello(link: &Link, peer: u32, first: bool, limit: Option<Duration>) -> io::Result<()> {
    let say = || {
        let text = format!("hello peer {peer}, this is peer {}\0", link.me());
        link.write_output(text.as_bytes())?;
        link.ring(peer);
        println!("said: {}", text.trim_end_matches('\0'));
        Ok::<_, io::Error>(())
    };
    if first {
        say()?;
    }
    if !link.wait(limit)? {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    let mut text = [0; 64];
    link.read_output(peer, &mut text)?;
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    println!("heard: {}", String::from_utf8_lossy(text.get(..end).unwrap_or_default()));
    if first { Ok(()) } else { say() }
}
