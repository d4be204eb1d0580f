//! The reactor by itself, with sources that do nothing but tell that their turn has come.

use std::time::{Duration, Instant};

use turnstile::net::reactor::{Context, Next, Reactor, Source};
use turnstile::proto::buffer::Pool;
use turnstile::proto::end::Side;
use turnstile::proto::event::{Event, Observer, Readiness, Subject};

/// Spawns so many others when it starts, one from the other, and runs when its time has come.
struct Parent {
    children: u32,
    wakes_at: Instant,
}

impl Source for Parent {
    /// What happened, in order.
    type Host = Vec<&'static str>;

    fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
        context.host.push("started");
        if self.children > 0 {
            context.spawn(Self { children: self.children - 1, ..*self });
        }
        Next::Wait
    }

    fn handle_readiness(&mut self, _: Side, _: Readiness) {}

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        context.host.push("ran");
        Next::Close
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.wakes_at)
    }
}

struct Nobody;

impl Observer for Nobody {
    fn wants_detail(&self) -> bool {
        false
    }

    fn observe(&mut self, _: u64, _: &Subject<'_>, _: &Event<'_>) {}
}

#[test]
fn what_is_spawned_at_a_start_does_not_wait_for_an_event() {
    let mut reactor =
        Reactor::new(Pool::new(4096, 1), Box::new(Nobody), Vec::new()).expect("a reactor");
    let wakes_at = Instant::now() + Duration::from_secs(1);
    reactor.spawn(Parent { children: 2, wakes_at });
    while !reactor.is_empty() {
        reactor.turn().expect("a turn");
    }
    assert_eq!(*reactor.host(), ["started", "started", "started", "ran", "ran", "ran"]);
}
