//! turnstile: a single-threaded, non-blocking network gate.
//!
//! One thread, one `poll`, one slab of state machines. Everything that the program does is the same
//! thing: a [session](proto::session) joins two ends, a *remote* one that faces the network and
//! passes the gate, and a *local* one that an admitted peer talks to, with one bounded
//! [pipe](proto::pipe) each way.
//!
//! | what it is | remote end | gate | local end |
//! |---|---|---|---|
//! | a server connection | an accepted [socket](net::socket), or [TLS](net::tls) over it | asks | a [service](proto::service) |
//! | a relayed connection | the same | asks | a [connection onward](net::forward), or an [exit](proto::exit) that is told where to |
//! | `turnstile connect` | a [socket to a server](net::remote) | answers | the [terminal](client::terminal) |
//! | `turnstile load` | the same | answers | a [generator](load::generator) |
//!
//! # The layers
//!
//! Imports run from left to right only; a test reads the sources and fails when one does not.
//!
//! ```text
//! main -> daemon, client, load -> config, net, certificates -> proto
//! ```
//!
//! | folder | what it is | what it must not do |
//! |---|---|---|
//! | [`proto`] | the rules: bytes, time and nonces in, bytes and decisions out | name a socket, a clock, or chance |
//! | [`net`] | readiness: the only folder that names mio | know a protocol |
//! | [`config`] | TOML to a checked, typed plan | open a socket |
//! | [`certificates`] | making, keeping and reading certificates | decide whom to trust |
//! | [`daemon`] | a plan to sources in the reactor, until it is stopped | block |
//! | [`client`] | talking to a server from a terminal or a pipe, inspecting its TLS | |
//! | [`load`] | many clients at once, timed and checked | leave out what would spoil the figures |
//!
//! # The states of a session
//!
//! ```text
//!  accepted or connected
//!           |
//!           v               wrong, late, gone
//!      AuthPending --------------------------------+
//!           | admitted (at once without a gate)    |
//!           v               both ended, failed,    v
//!      Established -------- idle, too old ------> closed
//!           | the service is done                  ^
//!           v               the peer closed too,   |
//!        Closing ---------- or took too long ------+
//! ```
//!
//! A connection from a proxy comes to this only when the proxy has said
//! [for whom](proto::proxy_protocol) it is.
//!
//! # The way of one event
//!
//! 1. [`Reactor::turn`](net::reactor::Reactor::turn) sleeps in `poll`. Each event that it returns
//!    carries a token: slab key, side, and the key's generation, so that an event for a source
//!    that has gone is dropped.
//! 2. The event only sets readiness bits in the source and makes it due. So does a deadline that has
//!    passed: the [wheel](net::timer) holds one node for each key, and looks at the real deadline
//!    only when the node comes up.
//! 3. Due sources wait in one of three lanes (`net::due`): those that were cheap lately apart from
//!    streams at full speed and from handshakes. Of the cheap ones, and then of the others, the turn
//!    runs as many in their order as half a millisecond allows; the rest keep their places for the
//!    next turn, before which the kernel is asked again. So a request waits for one or two costly runs,
//!    however many are due.
//! 4. A source that runs answers that it waits, that it wants another turn (its budget was spent), or
//!    that it is over. What is over leaves the slab; what was spawned (an accepted connection) enters
//!    it and runs, as much of it as a turn may.
//!
//! # The way of one byte
//!
//! 1. The socket is readable, so its [`exchange`](proto::end::End::exchange) lends a block of
//!    storage from the [pool](proto::buffer::Pool) to the inward pipe and calls `recv` once. A short
//!    read says that there is no more, and saves asking ([`net::socket`] knows the exceptions).
//! 2. The service finds bytes in the inward pipe. `upper` changes them where they lie and hands the
//!    block itself over to the outward pipe.
//! 3. The socket's next exchange calls `send` once. The pipe is empty, so the block goes back to the
//!    pool, and the next connection uses it while it is still in the cache.
//!
//! A pipe that is full is not read into, so the kernel's window closes and the sender waits: no signal
//! runs backwards. An idle connection holds no block at all.
//!
//! # Watching
//!
//! The reactor and the sessions tell one [observer](proto::event::Observer) what happens. The log is
//! one; with `RUST_LOG=trace` it shows every turn, event, read, write and state.

pub mod certificates;
pub mod client;
pub mod config;
pub mod daemon;
pub mod load;
pub mod net;
pub mod proto;
