//! PD programs whose transcript must be the same on the embedded and the official kernel.
//!
//! One program serves as every protection domain of `conformance.system`. The *director* (`conformance`) is the parent of the
//! others and runs the cases. Since all have the same image, it can start a child at any of the program's routines, with
//! any registers; a child hands its registers back by an unknown system call, which arrives as a fault. So a case is
//! straight code in the director, and each step of it is one system call of a chosen PD with every register known.
//!
//! The director writes `%% NN name: result` lines to the PL011 itself: a release kernel prints nothing. Results hold no
//! addresses of the program and no times, so the transcript is the same for every build. The expected ones, from the
//! official kernel, are in `expected/`.
//!
//! With `bench.system` the same program measures: see `bench`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod cases;
#[cfg(target_os = "none")]
mod director;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod raw;
#[cfg(target_os = "none")]
mod routines;
#[cfg(target_os = "none")]
mod serial;

#[cfg(target_os = "none")]
mod pd {
    use sel4_microkit::{
        Channel, ChannelSet, Handler, Infallible, MessageInfo, Never, get_mr, pd_name, protection_domain,
    };

    use crate::{bench, cases, raw};

    enum Role {
        Director,
        /// The director of `bench.system`.
        Bench,
        /// Started by the director only; its own beginning does nothing.
        Puppet,
        /// Has no parent: the monitor prints its fault.
        Orphan,
        /// A passive server with Microkit's loop.
        Passive,
    }

    #[protection_domain]
    fn init() -> impl Handler {
        match pd_name() {
            Ok("conformance") => Role::Director,
            Ok("bench") => Role::Bench,
            Ok("passive") => Role::Passive,
            Ok("orphan") => Role::Orphan,
            _ => Role::Puppet,
        }
    }

    impl Handler for Role {
        type Error = Infallible;

        /// The passive server: the answer tells what came. The mark is nothing unless somebody counts.
        fn protected(&mut self, channel: Channel, message: MessageInfo) -> Result<MessageInfo, Infallible> {
            bench::mark();
            let sum = (0..message.count()).map(get_mr).fold(0, u64::wrapping_add);
            sel4_microkit::set_mr(0, channel.index() as u64);
            sel4_microkit::set_mr(1, sum);
            Ok(MessageInfo::new(message.label() + 1, 2))
        }

        /// The passive server: counts in shared memory.
        fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
            channels.iter().for_each(|channel| crate::routines::trace(100 + channel.index() as u64));
            Ok(())
        }

        fn run(&mut self) -> Result<Never, Infallible> {
            match self {
                Role::Director => cases::run_all(),
                Role::Bench => bench::run_all(),
                Role::Passive => PassiveLoop(Role::Passive).run(),
                Role::Orphan => raw::fault_with_known_registers(),
                Role::Puppet => raw::exit([0; 7]),
            }
        }
    }

    /// [`Role`] with Microkit's own loop.
    struct PassiveLoop(Role);

    impl Handler for PassiveLoop {
        type Error = Infallible;

        fn protected(&mut self, channel: Channel, message: MessageInfo) -> Result<MessageInfo, Infallible> {
            self.0.protected(channel, message)
        }

        fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
            self.0.notified(channels)
        }
    }
}
