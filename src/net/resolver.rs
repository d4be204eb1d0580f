//! Names, looked up in the loop: the sockets around the pure [resolver](crate::proto::resolver).
//!
//! What is known of names lies with the host, as [`Names`], where every source can ask for it:
//! [`look_up`] answers at once or wakes the asker when there is an answer. The sockets live in a
//! source of their own, [`Queries`]. Each question, each time that it is put, has one of its own,
//! which lasts no longer than the question is open: so its port is one that nobody could learn
//! before. An answer that is too long for a datagram has a connection.
//!
//! Invariants: nothing here waits, but for a local file that has changed. A datagram that cannot be
//! sent now counts as lost on the way. What has come to the sockets is read before any time is up,
//! that of a question or of [who waits](patience): the loop may have stood still.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::Level;
use nix::poll::{PollFd, PollTimeout, poll};

use super::descriptors;
use super::reactor::{Context, Next, Source, Waker};
use crate::proto::end::Side;
use crate::proto::event::Readiness;
use crate::proto::resolver::{
    Answer, Hosts, Lookup, Requester, Resolver, Server, Settings, Suspicion, Transmit, Transport,
};
use crate::proto::timeouts::given_back;

use call::Call;
use datagram::Datagram;
use files::SystemFiles;

mod call;
mod datagram;
mod files;

/// How many answers are taken, and how many questions put, in one turn before the other sources have
/// theirs.
const ANSWERS_PER_TURN: usize = 64;
const QUESTIONS_PER_TURN: usize = 64;

/// Which side of their source the sockets for datagrams are, and which the connections.
const DATAGRAMS: Side = Side::Remote;
const CALLS: Side = Side::Local;

/// How long nothing more is said of guessed answers, after something was.
const SUSPICION_PAUSE: Duration = Duration::from_secs(10);

/// What is known of names, and who waits to know more.
pub struct Names {
    resolver: Resolver,
    /// What the system says about looking names up, where that counts.
    files: Option<SystemFiles>,
    /// By the names that they wait for.
    waiting: BTreeMap<Rc<str>, BTreeSet<Waker>>,
    /// Who would be late if nothing more lay in the sockets.
    overdue: BTreeSet<Waker>,
    /// When everything that lay there was last read.
    read: Option<Instant>,
    /// The source with the sockets, once it is there.
    queries: Option<Waker>,
}

impl Names {
    /// Names as this system looks them up: by /etc/resolv.conf and /etc/hosts, which are read again
    /// when they have changed. `servers` are asked instead of those of the file where there are any.
    #[must_use]
    pub fn of_system(servers: &[Server]) -> Self {
        let (files, settings, hosts) = SystemFiles::read(servers);
        Self { files: Some(files), ..Self::new(settings, hosts) }
    }

    /// Names as these settings say, with `hosts` known from the start.
    #[must_use]
    pub fn new(settings: Settings, hosts: Hosts) -> Self {
        let resolver = Resolver::new(settings, hosts, rand::random);
        let (waiting, overdue) = (BTreeMap::new(), BTreeSet::new());
        Self { resolver, files: None, waiting, overdue, read: None, queries: None }
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

    /// What is known of `host`, which is watched, to somebody who will not wait for more.
    pub fn known(&mut self, host: &str, now: Instant) -> Lookup {
        self.resolver.lookup(host, Requester::Ourselves, now)
    }

    /// Looks whether the system's files have changed, once in a while. Answers whether they have.
    fn refresh(&mut self, now: Instant) -> bool {
        let Some(files) = &mut self.files else { return false };
        let settings = files.changed_settings(self.resolver.settings(), now);
        let hosts = files.changed_hosts(now);
        let has_changed = settings.is_some() || hosts.is_some();
        if let Some(hosts) = hosts {
            self.resolver.change_hosts(hosts, now);
        }
        if let Some(settings) = settings {
            self.resolver.change_settings(settings, now);
        }
        has_changed
    }
}

/// What is known of `host`. Where that is nothing yet, `context`'s source is woken when that has
/// changed, and asks again.
pub fn look_up<S: Source>(host: &str, requester: Requester, context: &mut Context<'_, S>) -> Lookup
where
    S::Host: AsMut<Names>,
{
    let (now, asker) = (context.now, context.waker());
    let names = context.host.as_mut();
    let has_changed = names.refresh(now);
    let found = names.resolver.lookup(host, requester, now);
    if found == Lookup::Pending {
        names.waiting.entry(host.into()).or_default().insert(asker);
    }
    if found == Lookup::Pending || has_changed {
        wake_queries(context);
    }
    found
}

/// Until when somebody may go on waiting for `host`, which is [pending](Lookup::Pending), where his
/// time was up at `until`: longer where a name server has spoken of it in time. `None` as long as that
/// is not known; `context`'s source is woken when it is.
pub fn patience<S: Source>(
    host: &str,
    until: Instant,
    context: &mut Context<'_, S>,
) -> Option<Instant>
where
    S::Host: AsMut<Names>,
{
    let asker = context.waker();
    let names = context.host.as_mut();
    if names.queries.is_some() && names.read.is_none_or(|read| read < until) {
        names.overdue.insert(asker);
        wake_queries(context);
        return None;
    }
    let heard = names.resolver.heard(host);
    Some(heard.and_then(|heard| given_back(until, heard)).unwrap_or(until))
}

/// Asks for `host` anew, because its addresses are of no use. Silent waits for it.
pub fn renew<S: Source>(host: &str, requester: Requester, context: &mut Context<'_, S>)
where
    S::Host: AsMut<Names>,
{
    let now = context.now;
    context.host.as_mut().resolver.renew(host, requester, now);
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
    /// The questions that are put in datagrams.
    datagrams: Vec<Datagram>,
    /// Something may have arrived at any of them.
    is_ready: bool,
    /// The questions that are put over connections.
    calls: Vec<Call>,
    /// What events said of those since they were last looked at.
    heard_of_calls: Readiness,
    deadline: Option<Instant>,
    /// When something was last said of guessed answers.
    suspected: Option<Instant>,
}

impl Queries {
    /// Makes itself known to the host, and sends what waits.
    pub fn start<S: Source>(&mut self, context: &mut Context<'_, S>) -> Next
    where
        S::Host: AsMut<Names>,
    {
        context.host.as_mut().queries = Some(context.waker());
        self.run(context)
    }

    /// Remembers that something happened at one of the sockets. An event does not say at which.
    pub fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
        match side {
            DATAGRAMS => self.is_ready = true,
            CALLS => self.heard_of_calls = self.heard_of_calls.with(readiness),
        }
    }

    /// Takes in what came, sends what is to be asked, and wakes who waited for it.
    pub fn run<S: Source>(&mut self, context: &mut Context<'_, S>) -> Next
    where
        S::Host: AsMut<Names>,
    {
        let now = context.now;
        if self.deadline.is_some_and(|at| at <= now) || !context.host.as_mut().overdue.is_empty() {
            // Something may have arrived of which no event has told.
            self.is_ready = true;
            self.heard_of_calls = Readiness::READABLE.with(Readiness::WRITABLE);
        }
        let received = self.receive(&mut context.host.as_mut().resolver, now);
        self.hear_calls(context);
        let names = context.host.as_mut();
        names.refresh(now);
        if received == Next::Wait {
            // Nobody is late whose answer has arrived.
            names.resolver.handle_timeout(now);
            names.read = Some(now);
            for asker in std::mem::take(&mut names.overdue) {
                context.wake(asker);
            }
        }
        // First what makes room for more.
        self.close_what_is_over(&context.host.as_mut().resolver);
        for _ in 0..QUESTIONS_PER_TURN {
            let Some(transmit) = context.host.as_mut().resolver.poll_transmit() else { break };
            self.transmit(&transmit, context);
        }
        while let Some(suspicion) = context.host.as_mut().resolver.poll_suspicion() {
            self.tell_of(&suspicion, &context.host.as_mut().resolver, now);
        }
        while let Some(answer) = context.host.as_mut().resolver.poll_answer() {
            tell(&answer);
            let askers = context.host.as_mut().waiting.remove(&answer.host);
            for asker in askers.into_iter().flatten() {
                context.wake(asker);
            }
        }
        let resolver = &context.host.as_mut().resolver;
        self.close_what_is_over(resolver);
        self.deadline = resolver.poll_timeout();
        if resolver.has_transmits() { Next::Again } else { received }
    }

    fn close_what_is_over(&mut self, resolver: &Resolver) {
        let awaited = resolver.awaited();
        self.datagrams.retain(|datagram| awaited.contains(&datagram.serial()));
        self.calls.retain(|call| awaited.contains(&call.serial()));
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
        let ready = ready(self.datagrams.iter().map(Datagram::interest));
        for (served, index) in ready.into_iter().enumerate() {
            if served == ANSWERS_PER_TURN {
                self.is_ready = true;
                return Next::Again;
            }
            self.datagrams[index].receive(resolver, now);
        }
        Next::Wait
    }

    /// Takes in what the calls have come to.
    fn hear_calls<S: Source>(&mut self, context: &mut Context<'_, S>)
    where
        S::Host: AsMut<Names>,
    {
        let readiness = std::mem::replace(&mut self.heard_of_calls, Readiness::NONE);
        if readiness == Readiness::NONE {
            return;
        }
        let now = context.now;
        for index in ready(self.calls.iter().map(Call::interest)) {
            let call = &mut self.calls[index];
            call.handle_readiness(readiness);
            let serial = call.serial();
            match call.advance(context) {
                Ok(None) => context.host.as_mut().resolver.handle_progress(serial, now),
                Ok(Some(answer)) => {
                    let resolver = &mut context.host.as_mut().resolver;
                    resolver.handle_answer(answer, serial, now);
                    // Where that was no answer, none will come.
                    resolver.handle_lost(serial, now);
                }
                Err(error) => {
                    log::debug!("a name server over TCP: {error}");
                    context.host.as_mut().resolver.handle_lost(serial, now);
                }
            }
        }
    }

    /// Sends a question, from a new port.
    fn transmit<S: Source>(&mut self, transmit: &Transmit, context: &mut Context<'_, S>)
    where
        S::Host: AsMut<Names>,
    {
        if !context.host.as_mut().resolver.awaits(transmit.serial) {
            return;
        }
        let server = context.host.as_mut().resolver.servers()[transmit.server].clone();
        let sent = match transmit.transport {
            Transport::Datagram => Datagram::send(&server, transmit, context)
                .map(|datagram| self.datagrams.push(datagram)),
            Transport::Stream => {
                Call::begin(&server, transmit, context).map(|call| self.calls.push(call))
            }
        };
        match sent {
            // There may be descriptors when it is put again.
            Err(error) if !descriptors::have_run_out(&error) => {
                log::debug!("name server {server}: {error}");
                let now = context.now;
                context.host.as_mut().resolver.handle_lost(transmit.serial, now);
            }
            _ => {}
        }
    }

    /// Says that somebody guesses, once in a while: he decides how often he does.
    fn tell_of(&mut self, suspicion: &Suspicion, resolver: &Resolver, now: Instant) {
        if self.suspected.is_some_and(|before| now < before + SUSPICION_PAUSE) {
            return;
        }
        self.suspected = Some(now);
        log::warn!(
            "host {}: too many wrong answers in the name of the name server {}: somebody seems to \
             forge them, so it is asked over TCP",
            suspicion.host,
            resolver.servers()[suspicion.server]
        );
    }
}

/// The places in the list of those at which something has happened, with one system call.
fn ready<'fd>(all: impl Iterator<Item = PollFd<'fd>>) -> Vec<usize> {
    let mut all: Vec<_> = all.collect();
    if poll(&mut all, PollTimeout::ZERO).is_err() {
        // What is looked at in vain costs only time.
        return (0..all.len()).collect();
    }
    let is_ready = |it: &PollFd<'_>| it.any().unwrap_or(true);
    all.iter().enumerate().filter(|(_, it)| is_ready(it)).map(|(index, _)| index).collect()
}

/// Says what has changed of a watched name: a failure is said once, not at every repetition. What
/// came of a name that a peer asked for, its own line tells.
fn tell(answer: &Answer) {
    let host = &answer.host;
    match &answer.outcome {
        _ if !answer.is_news => {}
        Ok(addresses) => {
            let level = if answer.is_watched { Level::Info } else { Level::Debug };
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            log::log!(level, "host {host} is {}", addresses.join(", "));
        }
        Err(failure) if answer.is_watched => {
            log::warn!("host {host} was not found: {failure}; it is looked for again");
        }
        Err(failure) => log::debug!("host {host} was not found: {failure}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, UdpSocket};
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
        Asker(&'static str),
        Queries(Queries),
    }

    struct Shared {
        names: Names,
        /// What the askers were told, each time that they asked.
        told: Vec<(&'static str, Lookup)>,
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
                Self::Asker(_) => self.run(context),
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
                Self::Asker(host) => {
                    let found = look_up(host, Requester::Local, context);
                    context.host.told.push((host, found));
                    Next::Wait
                }
                Self::Queries(queries) => queries.run(context),
            }
        }

        fn deadline(&self) -> Option<Instant> {
            match self {
                Self::Asker(_) => None,
                Self::Queries(queries) => queries.deadline(),
            }
        }
    }

    /// Receives one question and answers it where it is about `db.test`; where it asks for.
    fn serve(server: &UdpSocket, address: IpAddr) -> SocketAddr {
        let mut bytes = [0; 512];
        let (len, from) = server.recv_from(&mut bytes).expect("a question");
        let question = Message::from_vec(&bytes[..len]).expect("a message");
        let query = question.queries[0].clone();
        if !query.name.to_ascii().eq_ignore_ascii_case("db.test.") {
            return from;
        }
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.recursion_available = true;
        if let (IpAddr::V4(address), RecordType::A) = (address, query.query_type) {
            answer.add_answer(Record::from_rdata(query.name.clone(), 60, RData::A(A(address))));
        }
        answer.add_query(query);
        server.send_to(&answer.to_vec().expect("it fits"), from).expect("sent");
        from
    }

    #[test]
    fn an_answer_wakes_whoever_waits_for_its_name_and_nobody_else() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let servers = vec![server.local_addr().expect("bound").into()];
        let settings = Settings { servers, ..Settings::default() };
        let shared = Shared { names: Names::new(settings, Hosts::default()), told: Vec::new() };
        let mut reactor =
            Reactor::new(Pool::new(4096, 1), Box::new(Silent), shared).expect("a reactor");
        reactor.spawn(Member::Queries(Queries::default()));
        for host in ["db.test", "silent.test", "db.test"] {
            reactor.spawn(Member::Asker(host));
        }
        reactor.turn().expect("the sockets' turn");
        let address = IpAddr::from([192, 0, 2, 7]);
        let ports: BTreeSet<_> = (0..4).map(|_| serve(&server, address).port()).collect();
        assert_eq!(ports.len(), 4, "each question comes from a port of its own");
        let begun = Instant::now();
        while reactor.host().told.len() < 5 {
            reactor.turn().expect("a turn");
            assert!(begun.elapsed() < PATIENCE, "nobody was woken");
        }
        let known = ("db.test", Lookup::Known([address].into()));
        assert_eq!(reactor.host().told[3..], [known.clone(), known]);
        let waiting: Vec<_> = reactor.host().names.waiting.keys().cloned().collect();
        assert_eq!(waiting, ["silent.test".into()]);
    }
}
