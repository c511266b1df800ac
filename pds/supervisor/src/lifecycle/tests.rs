use super::*;
use proptest::prelude::*;

fn config(text: &str) -> Config<'_> {
    partita_config::parse(text.as_bytes()).unwrap()
}

const THREE: &str = r#"{"cells":[
    {"name":"a","memory":"64M","kernel":"k"},
    {"name":"b","memory":"64M","kernel":"k","on_crash":"restart","on_reset":"stop","on_hang":"restart"},
    {"name":"c","memory":"64M","kernel":"k","autostart":false,"on_hang":"stop"}]}"#;

fn three() -> Lifecycle {
    Lifecycle::new(&config(THREE), 100)
}

#[test]
fn the_machine_goes_off_with_its_last_guest() {
    let mut all = three();
    assert_eq!(
        [0, 1, 2, 3].map(|n| all.cell(n)),
        [Cell::Running, Cell::Running, Cell::Waiting, Cell::Absent]
    );
    assert_eq!(all.stopped(0, StopReason::PowerOff, None, 0), Reaction::None);
    assert_eq!(all.stopped(1, StopReason::Reset, None, 0), Reaction::PowerOff);
    assert_eq!(all.failures(), 0);
    // Somebody starts the third.
    all.order(2, Order::Start).unwrap();
    all.running(2);
    assert_eq!(all.stopped(2, StopReason::Crash, None, 0), Reaction::PowerOff);
    assert_eq!(all.failures(), 1);
}

#[test]
fn but_not_while_somebody_works_at_the_shell() {
    let mut all = three();
    all.order(0, Order::Stop).unwrap();
    assert_eq!((all.cell(0), all.wish(0).unwrap().state), (Cell::Stopping, CellState::Stopped));
    assert_eq!(all.reached(0, CellState::Running), Reaction::None);
    assert_eq!(all.reached(0, CellState::Stopped), Reaction::None);
    assert_eq!(all.cell(0), Cell::Stopped);
    assert_eq!(all.stopped(1, StopReason::PowerOff, None, 0), Reaction::None);
    all.order(0, Order::Start).unwrap();
    assert_eq!(all.wish(0), Some(Wish { epoch: 1, state: CellState::Running }));
    assert_eq!(all.stopped(0, StopReason::PowerOff, Some(1), 0), Reaction::PowerOff);
}

#[test]
fn orders_that_make_no_sense_are_refused_with_what_would() {
    let mut all = three();
    let mut said = |n, order| match all.order(n, order) {
        Ok(()) => format!("{} {}", all.cell(n).name(), all.wish(n).unwrap().epoch),
        Err(refused) => refused.to_string(),
    };
    let script = [
        (0, Order::Start, "runs already; `restart` starts it afresh"),
        (0, Order::Resume, "runs already"),
        (0, Order::Pause, "paused 0"),
        (0, Order::Pause, "is paused already; `resume` lets it go on"),
        (0, Order::Start, "is paused; `resume` lets it go on"),
        (0, Order::Resume, "running 0"),
        (0, Order::Restart, "running 1"),
        (0, Order::Pause, "paused 1"),
        (0, Order::Stop, "stopping 1"),
        (0, Order::Stop, "is being stopped; ask again when it is"),
        (0, Order::Start, "is being stopped; ask again when it is"),
        (0, Order::Restart, "running 2"),
        (2, Order::Stop, "does not run, it is waiting; `start` starts it"),
        (2, Order::Restart, "running 1"),
        (3, Order::Start, "does not exist"),
    ];
    for (n, order, expected) in script {
        assert_eq!(said(n, order), expected, "{n} {order:?}");
    }
    all.vmm_died(0);
    assert_eq!(all.order(0, Order::Restart).unwrap_err().to_string(), "cannot do that: its VMM has faulted");
}

#[test]
fn a_guest_starts_again_with_its_vmm_as_its_policy_says() {
    let mut all = three();
    // Cell 1 restarts on a crash, cell 0 does not.
    assert_eq!((all.vmm_restarts(0, Cause::Itself, 0), all.cell(0)), (Reaction::Publish, Cell::Crashed));
    assert_eq!(all.wish(0).unwrap(), Wish { epoch: 0, state: CellState::Stopped });
    for n in 1..=RESTARTS {
        assert_eq!(
            (all.vmm_restarts(1, Cause::Itself, 0), all.wish(1).unwrap().epoch),
            (Reaction::Publish, n)
        );
    }
    for n in 1..=100 {
        assert_eq!(all.vmm_restarts(1, Cause::Test, 0), Reaction::Publish);
        assert_eq!(all.wish(1).unwrap(), Wish { epoch: RESTARTS + n, state: CellState::Running });
    }
    assert_eq!((all.vmm_restarts(1, Cause::Itself, 0), all.cell(1)), (Reaction::PowerOff, Cell::Crashed));
    // Nothing ran: nothing starts.
    assert_eq!((all.vmm_restarts(1, Cause::Itself, 0), all.cell(1)), (Reaction::None, Cell::Crashed));
    all.vmm_died(1);
    assert_eq!((all.vmm_restarts(1, Cause::Order, 0), all.cell(1)), (Reaction::Publish, Cell::Running));
    assert_eq!(all.vmm_restarts(MAX_CELLS, Cause::Order, 0), Reaction::None);
    all.end();
    assert_eq!((all.vmm_restarts(1, Cause::Order, 0), all.cell(1)), (Reaction::None, Cell::Stopping));
}

#[test]
fn a_guest_that_ends_while_it_is_restarted_does_not_end_the_machine() {
    let mut all = three();
    assert_eq!(all.stopped(1, StopReason::PowerOff, Some(0), 0), Reaction::None);
    all.order(0, Order::Restart).unwrap();
    assert_eq!(all.stopped(0, StopReason::PowerOff, Some(0), 0), Reaction::None);
    assert_eq!(all.cell(0), Cell::Running);
    assert_eq!(all.stopped(0, StopReason::PowerOff, Some(1), 0), Reaction::PowerOff);
}

#[test]
fn shutting_down_waits_for_all() {
    let mut all = three();
    all.order(0, Order::Pause).unwrap();
    assert_eq!((all.end(), all.idle()), (0b011, Reaction::None));
    // Asked twice.
    assert_eq!((all.end(), all.idle()), (0, Reaction::None));
    assert_eq!(all.reached(0, CellState::Stopped), Reaction::None);
    // It powers off in the same moment: as good.
    assert_eq!(all.stopped(1, StopReason::Reset, Some(0), 0), Reaction::PowerOff);
    assert_eq!(all.failures(), 0);
    // Nothing runs: at once.
    let mut all = Lifecycle::new(&Config::default(), 100);
    assert_eq!((all.end(), all.idle()), (0, Reaction::PowerOff));
}

#[test]
fn a_reset_starts_again_by_default() {
    let mut all = three();
    for n in 0..100 {
        assert_eq!(all.stopped(0, StopReason::Reset, Some(n), 0), Reaction::Publish);
    }
    assert_eq!(all.cell(0), Cell::Running);
    assert_eq!(all.wish(0), Some(Wish { epoch: 100, state: CellState::Running }));
}

#[test]
fn a_crash_loop_ends() {
    let mut all = three();
    for _ in 0..RESTARTS {
        assert_eq!(all.stopped(1, StopReason::Crash, None, 1000), Reaction::Publish);
    }
    assert_eq!(all.stopped(1, StopReason::Crash, None, 1001), Reaction::None);
    assert_eq!(all.cell(1), Cell::Crashed);
    // A minute later it may try again.
    assert_eq!(all.stopped(1, StopReason::Crash, None, 1000 + 6000), Reaction::Publish);
    assert_eq!(all.vmm_died(0), Reaction::None);
    assert_eq!(all.vmm_died(1), Reaction::PowerOff);
    assert_eq!(all.failures(), 2);
}

#[test]
fn a_hang_is_handled_as_configured() {
    let mut all = three();
    assert_eq!((all.hung(0, 0), all.cell(0)), (Reaction::None, Cell::Running));
    for epoch in 1..=RESTARTS {
        assert_eq!((all.hung(1, 0), all.wish(1).unwrap().epoch), (Reaction::Publish, epoch));
    }
    assert_eq!((all.hung(1, 0), all.cell(1)), (Reaction::Publish, Cell::Stopping));
    assert_eq!((all.reached(1, CellState::Stopped), all.cell(1)), (Reaction::None, Cell::Hung));
    assert_eq!(all.hung(2, 0), Reaction::None, "it does not run");
    all.order(2, Order::Start).unwrap();
    assert_eq!((all.hung(2, 0), all.cell(2)), (Reaction::Publish, Cell::Stopping));
    assert_eq!(all.stopped(0, StopReason::PowerOff, None, 0), Reaction::None);
    assert_eq!(all.reached(2, CellState::Stopped), Reaction::PowerOff);
    assert_eq!(all.failures(), 2);
}

#[test]
fn cells_that_do_not_exist_decide_nothing() {
    let mut all = Lifecycle::new(&Config::default(), 0);
    for n in [0, MAX_CELLS, usize::MAX] {
        all.running(n);
        assert_eq!(all.stopped(n, StopReason::Crash, None, 5), Reaction::None);
        assert_eq!(all.vmm_died(n), Reaction::None);
        assert_eq!(all.hung(n, 0), Reaction::None);
        assert_eq!(all.reached(n, CellState::Stopped), Reaction::None);
        assert!(all.order(n, Order::Restart).is_err());
    }
}

proptest! {
    /// In whatever order things happen: epochs only grow, and a wish is the state that the cell is in or goes to.
    #[test]
    fn wishes_fit_the_states(steps in prop::collection::vec((0usize..4, 0u8..10), 0..60)) {
        let mut all = three();
        let mut epochs = [0; 4];
        for (now, (n, what)) in steps.into_iter().enumerate() {
            let now = now as u64;
            let _ = match what {
                0 => all.order(n, Order::Start).map_or(Reaction::None, |()| Reaction::Publish),
                1 => all.order(n, Order::Stop).map_or(Reaction::None, |()| Reaction::Publish),
                2 => all.order(n, Order::Pause).map_or(Reaction::None, |()| Reaction::Publish),
                3 => all.order(n, Order::Resume).map_or(Reaction::None, |()| Reaction::Publish),
                4 => all.order(n, Order::Restart).map_or(Reaction::None, |()| Reaction::Publish),
                5 => all.stopped(n, StopReason::Crash, None, now),
                6 => all.stopped(n, StopReason::PowerOff, None, now),
                7 => all.hung(n, now),
                8 => all.reached(n, CellState::Stopped),
                _ => { all.running(n); Reaction::None }
            };
            for (n, before) in epochs.iter_mut().enumerate() {
                let Some(wish) = all.wish(n) else { continue };
                prop_assert!(wish.epoch >= *before);
                *before = wish.epoch;
                let fits = match all.cell(n) {
                    Cell::Paused => wish.state == CellState::Paused,
                    Cell::Stopping | Cell::Stopped | Cell::Hung => wish.state == CellState::Stopped,
                    Cell::Running => wish.state == CellState::Running,
                    _ => true,
                };
                prop_assert!(fits, "{:?} {:?}", all.cell(n), wish);
            }
        }
    }
}
