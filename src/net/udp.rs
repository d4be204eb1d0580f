//! A UDP socket that receives in batches and answers in batches: one system call for up to
//! [`BATCH`] datagrams each way (`recvmmsg(2)`, `sendmmsg(2)`).
//!
//! Each datagram has a slot for its bytes. A reply is made in the slot of its request and sent from
//! there. While replies wait to be sent nothing is received, so what is held is bounded by one
//! batch; what arrives meanwhile waits in the kernel, which drops when its queue is full, as UDP
//! may.
//!
//! A socket on every address of the machine answers from the one that was
//! [asked](super::udp_destination).

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::reactor::{Context, Source};
use super::udp_destination::{self, Destination};
use crate::proto::end::Side;
use crate::proto::event::{Event, Readiness, Transfer, Watch};

/// How many datagrams one system call moves at the most.
pub const BATCH: usize = 64;

/// The longest datagram there can be (IPv6 without jumbograms; IPv4 has 65,507).
const LONGEST: usize = 65_527;

/// The distance between slots. A little more than a datagram, and not a power of two, so that the
/// first bytes of all slots do not compete for the same lines of the processor's cache.
const STRIDE: usize = 65_536 + 128;

/// A bound, non-blocking UDP socket with the storage for one batch.
pub struct UdpServer {
    socket: mio::net::UdpSocket,
    address: SocketAddr,
    /// Whether each datagram tells to which of our addresses it was sent.
    only_ipv6: bool,
    is_told: bool,
    readiness: Readiness,
    storage: Vec<u8>,
    receiving: MultiHeaders<SockaddrStorage>,
    sending: MultiHeaders<SockaddrStorage>,
    arrived: Vec<Arrival>,
    replies: Replies,
}

#[derive(Clone, Copy)]
struct Arrival {
    len: usize,
    from: Option<SockaddrStorage>,
    to: Destination,
}

/// The replies of one batch, in the order of their requests, and how many of them are sent.
#[derive(Default)]
struct Replies {
    /// Slot and length.
    slots: Vec<(usize, usize)>,
    addresses: Vec<Option<SockaddrStorage>>,
    /// Where each is sent from.
    own: Vec<Destination>,
    sent: usize,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch {
    /// Datagrams received.
    pub received: usize,
    /// Datagrams sent.
    pub sent: usize,
    /// Replies that the kernel refused and that were given up.
    pub lost: usize,
    /// Datagrams that were sent to everybody or to a group, which nobody answers.
    pub for_many: usize,
}

/// A request, as it is judged.
pub struct Request<'a> {
    /// Who sent it, or is said to have; an IPv4 address as what it is.
    pub from: SocketAddr,
    /// The address that was asked.
    pub to: SocketAddr,
    /// Where it lies; the reply takes its place.
    pub slot: &'a mut [u8],
    /// Its length.
    pub len: usize,
}

impl UdpServer {
    /// Binds `address`; `[::]` takes IPv4 too where the system allows it, and not with `only_ipv6`.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn bind(address: SocketAddr, only_ipv6: bool) -> io::Result<Self> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = RawSocket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(only_ipv6 || !address.ip().is_unspecified())?;
        }
        let room = udp_destination::ask(&socket, address)?;
        socket.bind(&address.into())?;
        let socket = mio::net::UdpSocket::from_std(socket.into());
        Ok(Self {
            address: socket.local_addr()?,
            is_told: room.is_some(),
            only_ipv6,
            socket,
            readiness: Readiness::WRITABLE,
            storage: vec![0; BATCH * STRIDE],
            receiving: MultiHeaders::preallocate(BATCH, room.clone()),
            sending: MultiHeaders::preallocate(BATCH, room),
            arrived: Vec::with_capacity(BATCH),
            replies: Replies::default(),
        })
    }

    /// Whether `[::]` leaves IPv4 to another socket.
    #[must_use]
    pub fn only_ipv6(&self) -> bool {
        self.only_ipv6
    }

    /// The address that the system bound.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Whether `error`, which a step has met, means that the socket is of no use any more: it is no
    /// socket, or the system has taken its address from it (as `ss --kill` does).
    #[must_use]
    pub fn is_dead_of(&self, error: &io::Error) -> bool {
        let errno = error.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::ENOTCONN))
            || self.socket.local_addr().ok() != Some(self.address)
    }

    /// Registers for readiness as the remote side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        context.register_duplex(&mut self.socket, Side::Remote)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.readiness = self.readiness.with(readiness);
    }

    /// Sends replies that wait, or receives one batch and answers it.
    ///
    /// `answer` answers the length of the reply that it has put in the request's place, or `None` for
    /// no reply.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`. Most pass; [`is_dead_of`](Self::is_dead_of) tells those that do not.
    pub fn step(
        &mut self,
        watch: &mut Watch<'_>,
        mut answer: impl FnMut(Request<'_>) -> Option<usize>,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        if self.replies.is_empty() && self.readiness.contains(Readiness::READABLE) {
            batch.received = self.receive(watch)?;
            for (number, arrival) in self.arrived.drain(..).enumerate() {
                let Some(from) = arrival.from.and_then(inet_address) else { continue };
                if arrival.to == Destination::Many {
                    batch.for_many += 1;
                    continue;
                }
                let own = arrival.to.ip().unwrap_or(self.address.ip());
                let to = SocketAddr::new(own, self.address.port());
                let slot = &mut self.storage[number * STRIDE..number * STRIDE + LONGEST];
                if let Some(len) = answer(Request { from, to, slot, len: arrival.len }) {
                    self.replies.slots.push((number, len));
                    self.replies.addresses.push(arrival.from);
                    self.replies.own.push(arrival.to);
                }
            }
        }
        if !self.replies.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            (batch.sent, batch.lost) = self.send(watch);
        }
        Ok(batch)
    }

    fn receive(&mut self, watch: &mut Watch<'_>) -> io::Result<usize> {
        let mut storage = self.storage.chunks_exact_mut(STRIDE);
        let mut slots: [[IoSliceMut<'_>; 1]; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(storage.next().unwrap_or_default())]);
        let outcome = recvmmsg(
            self.socket.as_raw_fd(),
            &mut self.receiving,
            slots.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        );
        let transfer = match outcome {
            Ok(messages) => {
                let bytes = messages.map(|message| {
                    let to = Destination::of(&message, self.is_told);
                    let arrival = Arrival { len: message.bytes, from: message.address, to };
                    self.arrived.push(arrival);
                    arrival.len
                });
                Transfer::Bytes(bytes.sum())
            }
            // The others: those that an earlier reply caused were cleared by being reported.
            Err(Errno::EINTR) => Transfer::Bytes(0),
            Err(Errno::EAGAIN) => Transfer::WouldBlock,
            Err(error) => return Err(error.into()),
        };
        if transfer == Transfer::WouldBlock || (1..BATCH).contains(&self.arrived.len()) {
            self.readiness = self.readiness.without(Readiness::READABLE);
        }
        watch.detail(|| Event::Read(Side::Remote, transfer));
        Ok(self.arrived.len())
    }

    /// Sends what waits until it is sent or the kernel's queue is full. A reply that cannot be
    /// sent (its address is not reachable, it is too long for the path) is given up, as the
    /// network might have done. Answers how many were sent and how many given up.
    fn send(&mut self, watch: &mut Watch<'_>) -> (usize, usize) {
        let (mut sent, mut lost) = (0, 0);
        while !self.replies.is_empty() {
            let (own, waiting) = self.replies.next();
            let mut replies = self.replies.slots[waiting.clone()].iter();
            let slices: [[IoSlice<'_>; 1]; BATCH] = array::from_fn(|_| {
                let &(slot, len) = replies.next().unwrap_or(&(0, 0));
                [IoSlice::new(&self.storage[slot * STRIDE..][..len])]
            });
            let addresses = &self.replies.addresses[waiting];
            let (fd, sending) = (self.socket.as_raw_fd(), &mut self.sending);
            let outcome = own.send_from(|from| {
                sendmmsg(fd, sending, slices.iter(), addresses, from, MsgFlags::MSG_DONTWAIT)
                    .map(Iterator::count)
            });
            match outcome {
                Ok(count) => {
                    sent += count;
                    self.replies.advance(count);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.readiness = self.readiness.without(Readiness::WRITABLE);
                    watch.detail(|| Event::Write(Side::Remote, Transfer::WouldBlock));
                    break;
                }
                Err(_) => {
                    lost += 1;
                    self.replies.advance(1);
                }
            }
        }
        watch.detail(|| Event::Write(Side::Remote, Transfer::Bytes(sent)));
        (sent, lost)
    }

    /// Whether a further step would find something to do.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        let needed =
            if self.replies.is_empty() { Readiness::READABLE } else { Readiness::WRITABLE };
        self.readiness.contains(needed)
    }
}

impl Replies {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Those that can be sent next with one call: they are sent from one address.
    fn next(&self) -> (Destination, Range<usize>) {
        let waiting = &self.own[self.sent..];
        let own = waiting[0];
        let count = waiting.iter().take_while(|other| **other == own).count();
        (own, self.sent..self.sent + count)
    }

    fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.slots.len() {
            self.slots.clear();
            self.addresses.clear();
            self.own.clear();
            self.sent = 0;
        }
    }
}

fn inet_address(storage: SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    let v6 = storage.as_sockaddr_in6()?;
    let v6 = SocketAddrV6::from(*v6);
    // An IPv4 peer of an IPv6 socket is the IPv4 address that it is.
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => Some((v4, v6.port()).into()),
        None => Some(v6.into()),
    }
}
