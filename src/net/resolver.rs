//! Names, looked up in the loop: the sockets around the pure [resolver](crate::proto::resolver).
//!
//! What is known of names lies with the host, as [`Names`], where every source can ask for it:
//! [`look_up`] answers at once or wakes the asker when there is an answer. The sockets live in a
//! source of their own, [`Queries`]. They are open only while a question is, so that each burst of
//! questions comes from ports of its own that nobody could learn before. An answer that is too long
//! for a datagram has a connection of its own, which lasts no longer than its question is open.
//!
//! Invariant: nothing here waits. A datagram that cannot be sent now counts as lost on the way.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mio::Interest;
use mio::net::UdpSocket;

use super::reactor::{Context, Next, Source, Waker};
use crate::proto::end::Side;
use crate::proto::event::Readiness;
use crate::proto::resolver::{Answer, Hosts, Lookup, Resolver, Settings, Transmit, Transport};

use call::Call;

mod call;

/// How many datagrams of one server are taken in one turn before the other sources have theirs.
const DATAGRAMS_PER_TURN: usize = 64;

/// Which side of their source the sockets for datagrams are, and which the connections.
const DATAGRAMS: Side = Side::Remote;
const CALLS: Side = Side::Local;

/// Longer than any answer that is asked for; what is longer is cut off and not understood.
const LONGEST_ANSWER: usize = 4096;

/// What is known of names, and who waits to know more.
pub struct Names {
    resolver: Resolver,
    waiting: HashSet<Waker>,
    /// The source with the sockets, once it is there.
    queries: Option<Waker>,
}

impl Names {
    /// Names as this system looks them up: by /etc/resolv.conf and /etc/hosts, which are read now
    /// and never again. `servers` are asked instead of those of the file where there are any.
    #[must_use]
    pub fn of_system(servers: &[SocketAddr]) -> Self {
        let mut settings = Settings::parse(&text("/etc/resolv.conf"));
        if !servers.is_empty() {
            settings.servers = servers.to_vec();
        }
        Self::new(settings, Hosts::parse(&text("/etc/hosts")))
    }

    /// Names as these settings say, with `hosts` known from the start.
    #[must_use]
    pub fn new(settings: Settings, hosts: Hosts) -> Self {
        let resolver = Resolver::new(settings, hosts, rand::random);
        Self { resolver, waiting: HashSet::new(), queries: None }
    }

    /// Keeps what is known of `host` up to date from now on.
    pub fn watch(&mut self, host: &str, now: Instant) {
        self.resolver.watch(host, now);
    }

    /// Whether every watched name has been answered once, for good or ill.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.resolver.is_settled()
    }

    /// What is known of `host`, to somebody who will not wait for more.
    pub fn known(&mut self, host: &str, now: Instant) -> Lookup {
        self.resolver.lookup(host, now)
    }
}

/// A file that is missing says nothing.
fn text(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            log::debug!("{path} is not used: {error}");
            String::new()
        }
    }
}

/// What is known of `host`. Where that is nothing yet, `context`'s source is woken when that has
/// changed, and asks again.
pub fn look_up<S: Source>(host: &str, context: &mut Context<'_, S>) -> Lookup
where
    S::Host: AsMut<Names>,
{
    let (now, asker) = (context.now, context.waker());
    let names = context.host.as_mut();
    let found = names.resolver.lookup(host, now);
    if found == Lookup::Pending {
        names.waiting.insert(asker);
        wake_queries(context);
    }
    found
}

/// Asks for `host` anew, because its addresses are of no use. Silent waits for it.
pub fn renew<S: Source>(host: &str, context: &mut Context<'_, S>)
where
    S::Host: AsMut<Names>,
{
    let now = context.now;
    context.host.as_mut().resolver.renew(host, now);
    wake_queries(context);
}

/// There may be something to send.
fn wake_queries<S: Source>(context: &mut Context<'_, S>)
where
    S::Host: AsMut<Names>,
{
    if let Some(queries) = context.host.as_mut().queries {
        context.wake(queries);
    }
}

/// The sockets to the name servers, as a source.
#[derive(Debug, Default)]
pub struct Queries {
    /// One for each server, in their order; open while a question is.
    sockets: Vec<Option<UdpSocket>>,
    /// Something may have arrived at any of them.
    is_ready: bool,
    /// The questions that are put over connections.
    calls: Vec<Call>,
    deadline: Option<Instant>,
}

impl Queries {
    /// Makes itself known to the host, and sends what waits.
    pub fn start<S: Source>(&mut self, context: &mut Context<'_, S>) -> Next
    where
        S::Host: AsMut<Names>,
    {
        let waker = context.waker();
        let names = context.host.as_mut();
        names.queries = Some(waker);
        self.sockets.resize_with(names.resolver.servers().len(), || None);
        self.run(context)
    }

    /// Remembers that something happened at one of the sockets. An event does not say at which.
    pub fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
        match side {
            DATAGRAMS => self.is_ready = true,
            CALLS => self.calls.iter_mut().for_each(|call| call.handle_readiness(readiness)),
        }
    }

    /// Takes in what came, sends what is to be asked, and wakes who waited for it.
    pub fn run<S: Source>(&mut self, context: &mut Context<'_, S>) -> Next
    where
        S::Host: AsMut<Names>,
    {
        let now = context.now;
        let next = self.receive(&mut context.host.as_mut().resolver, now);
        self.hear_calls(context);
        context.host.as_mut().resolver.handle_timeout(now);
        while let Some(transmit) = context.host.as_mut().resolver.poll_transmit() {
            self.transmit(&transmit, context);
        }
        while let Some(answer) = context.host.as_mut().resolver.poll_answer() {
            tell(&answer);
            for asker in std::mem::take(&mut context.host.as_mut().waiting) {
                context.wake(asker);
            }
        }
        let resolver = &context.host.as_mut().resolver;
        self.calls.retain(|call| resolver.awaits_stream(call.id()));
        if resolver.is_idle() {
            self.sockets.fill_with(|| None);
        }
        self.deadline = resolver.poll_timeout();
        next
    }

    /// When to run even if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn receive(&mut self, resolver: &mut Resolver, now: Instant) -> Next {
        if !std::mem::take(&mut self.is_ready) {
            return Next::Wait;
        }
        let mut bytes = [0; LONGEST_ANSWER];
        let mut next = Next::Wait;
        for server in 0..self.sockets.len() {
            let mut left = DATAGRAMS_PER_TURN;
            while let Some(socket) = &self.sockets[server] {
                if left == 0 {
                    self.is_ready = true;
                    next = Next::Again;
                    break;
                }
                left -= 1;
                match socket.recv(&mut bytes) {
                    Ok(len) => resolver.handle_datagram(&bytes[..len], server, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => self.give_up(server, &error, resolver, now),
                }
            }
        }
        next
    }

    /// Takes in what the calls have come to.
    fn hear_calls<S: Source>(&mut self, context: &mut Context<'_, S>)
    where
        S::Host: AsMut<Names>,
    {
        let now = context.now;
        self.calls.retain_mut(|call| {
            let (server, id) = (call.server(), call.id());
            match call.advance(context) {
                Ok(None) => return true,
                Ok(Some(answer)) => {
                    let resolver = &mut context.host.as_mut().resolver;
                    resolver.handle_stream_answer(answer, server, id, now);
                }
                Err(error) => lose_call(server, id, &error, context),
            }
            false
        });
    }

    fn transmit<S: Source>(&mut self, transmit: &Transmit, context: &mut Context<'_, S>)
    where
        S::Host: AsMut<Names>,
    {
        let Transmit { server, transport, id, bytes } = transmit;
        match transport {
            Transport::Datagram => {
                if let Err(error) = self.send(*server, bytes, context) {
                    let now = context.now;
                    self.give_up(*server, &error, &mut context.host.as_mut().resolver, now);
                }
            }
            Transport::Stream => {
                let address = context.host.as_mut().resolver.servers()[*server];
                match Call::begin(address, transmit, context) {
                    Ok(call) => self.calls.push(call),
                    Err(error) => lose_call(*server, *id, &error, context),
                }
            }
        }
    }

    /// Sends a question, from a new port where none is open.
    fn send<S: Source>(
        &mut self,
        server: usize,
        bytes: &[u8],
        context: &mut Context<'_, S>,
    ) -> io::Result<()>
    where
        S::Host: AsMut<Names>,
    {
        let socket = match &mut self.sockets[server] {
            Some(socket) => socket,
            closed => {
                let address = context.host.as_mut().resolver.servers()[server];
                let mut socket = connect(address)?;
                context.register(&mut socket, DATAGRAMS, Interest::READABLE)?;
                closed.insert(socket)
            }
        };
        match socket.send(bytes) {
            Err(error) if is_passing(&error) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Lets the questions that this server was asked go to another.
    fn give_up(&mut self, server: usize, error: &io::Error, resolver: &mut Resolver, now: Instant) {
        log::debug!("name server {}: {error}", resolver.servers()[server]);
        self.sockets[server] = None;
        resolver.handle_unreachable(server, now);
    }
}

/// Lets a question that was put over a connection go to another server.
fn lose_call<S: Source>(server: usize, id: u16, error: &io::Error, context: &mut Context<'_, S>)
where
    S::Host: AsMut<Names>,
{
    let now = context.now;
    let resolver = &mut context.host.as_mut().resolver;
    log::debug!("name server {} over TCP: {error}", resolver.servers()[server]);
    resolver.handle_stream_lost(id, now);
}

/// A socket that hears only `server`. The system chooses its port, at random.
fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Says what has changed. A failure is said once, not at every repetition. What came of a name that a
/// peer asked for, its own line tells.
fn tell(answer: &Answer) {
    let host = &answer.host;
    let of = |level| if answer.is_watched { level } else { log::Level::Debug };
    match &answer.outcome {
        Ok(addresses) if answer.is_news => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            log::log!(of(log::Level::Info), "host {host} is {}", addresses.join(", "));
        }
        Err(failure) if answer.is_news => {
            log::log!(of(log::Level::Warn), "host {host} was not found: {failure}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};
    use std::time::Duration;

    use hickory_proto::op::{Message, OpCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record, RecordType};

    use super::*;
    use crate::net::reactor::Reactor;
    use crate::proto::buffer::Pool;
    use crate::proto::event::Silent;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Somebody who wants to know where a name is, and the sockets.
    enum Member {
        Asker,
        Queries(Queries),
    }

    struct Shared {
        names: Names,
        /// What the asker was told, each time that it asked.
        told: Vec<Lookup>,
    }

    impl AsMut<Names> for Shared {
        fn as_mut(&mut self) -> &mut Names {
            &mut self.names
        }
    }

    impl Source for Member {
        type Host = Shared;

        fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
            match self {
                Self::Asker => self.run(context),
                Self::Queries(queries) => queries.start(context),
            }
        }

        fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
            if let Self::Queries(queries) = self {
                queries.handle_readiness(side, readiness);
            }
        }

        fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
            match self {
                Self::Asker => {
                    let found = look_up("db.test", context);
                    context.host.told.push(found);
                    Next::Wait
                }
                Self::Queries(queries) => queries.run(context),
            }
        }

        fn deadline(&self) -> Option<Instant> {
            match self {
                Self::Asker => None,
                Self::Queries(queries) => queries.deadline(),
            }
        }
    }

    /// Receives one question and answers it; where it asks for.
    fn serve(server: &UdpSocket, address: IpAddr) -> SocketAddr {
        let mut bytes = [0; 512];
        let (len, from) = server.recv_from(&mut bytes).expect("a question");
        let question = Message::from_vec(&bytes[..len]).expect("a message");
        let query = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        if let (IpAddr::V4(address), RecordType::A) = (address, query.query_type) {
            answer.add_answer(Record::from_rdata(query.name.clone(), 60, RData::A(A(address))));
        }
        answer.add_query(query);
        server.send_to(&answer.to_vec().expect("it fits"), from).expect("sent");
        from
    }

    #[test]
    fn who_asks_for_an_unknown_name_is_woken_when_it_is_known() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let servers = vec![server.local_addr().expect("bound")];
        let settings = Settings { servers, ..Settings::default() };
        let shared = Shared { names: Names::new(settings, Hosts::default()), told: Vec::new() };
        let mut reactor =
            Reactor::new(Pool::new(4096, 1), Box::new(Silent), shared).expect("a reactor");
        reactor.spawn(Member::Queries(Queries::default()));
        reactor.spawn(Member::Asker);
        assert_eq!(reactor.host().told, [Lookup::Pending]);

        reactor.turn().expect("the sockets' turn");
        let address = IpAddr::from([192, 0, 2, 7]);
        let ports = [serve(&server, address), serve(&server, address)];
        assert_eq!(ports[0], ports[1], "both questions of a burst come from one port");
        let begun = Instant::now();
        while reactor.host().told.len() < 2 {
            reactor.turn().expect("a turn");
            assert!(begun.elapsed() < PATIENCE, "nobody was woken");
        }
        assert_eq!(reactor.host().told[1], Lookup::Known([address].into()));
        assert!(reactor.host().names.waiting.is_empty());
    }
}
