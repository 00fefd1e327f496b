//! A netlink socket and the three ways to use it: a request, a question and a dump; for nftables a batch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::message::{self, DONE, Message, Received, flags};

/// The kernel answers before it returns from the request, unless it is out of memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel's own dumps fill at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// How often a dump is taken again when what it lists changes meanwhile.
const MAX_DUMP_ATTEMPTS: usize = 4;

/// A socket of one network namespace: that of the thread which opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens one for links, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// Opens one for nftables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// Opens one that hears of changes of IPv4 routes, those of its own addresses among them.
    pub(crate) fn route_changes() -> io::Result<Self> {
        const RTMGRP_IPV4_ROUTE: u32 = 0x40;
        let socket = Self::open(None)?;
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, RTMGRP_IPV4_ROUTE))?;
        Ok(socket)
    }

    /// Throws away what has arrived: that something did is all that matters.
    pub(crate) fn discard(&mut self) {
        let flags = RecvFlags::DONTWAIT;
        // That some did not fit is an error that is told once.
        while let Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) =
            rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), flags)
        {}
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Asks for a change, and waits until it is made or refused.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.batch(vec![(message, true)])
    }

    /// Sends several messages in one datagram; `true` beside those that the kernel acknowledges. The first refusal is the error.
    pub(crate) fn batch(&mut self, messages: Vec<(Message, bool)>) -> io::Result<()> {
        let first_sequence = self.sequence.wrapping_add(1);
        let mut last_sequence = first_sequence;
        let mut datagram = Vec::new();
        for (message, acknowledged) in messages {
            self.sequence = self.sequence.wrapping_add(1);
            let flag = if acknowledged { flags::ACK } else { 0 };
            datagram.extend(message.finish(self.sequence, flag));
            if acknowledged {
                last_sequence = self.sequence;
            }
        }
        self.send(&datagram)?;
        let end = self.sequence;
        let is_of_batch = |sequence: u32| {
            sequence.wrapping_sub(first_sequence) <= end.wrapping_sub(first_sequence)
        };
        loop {
            let length = self.receive()?;
            let received = self.buffer.get(..length).unwrap_or_default();
            for answer in message::messages(received) {
                match answer.errno() {
                    Some(0) if answer.sequence == last_sequence => return Ok(()),
                    Some(errno) if errno != 0 && is_of_batch(answer.sequence) => {
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    // An acknowledgement of an earlier part, or the rest of a batch that failed before.
                    _ => {}
                }
            }
        }
    }

    /// Asks a question with one answer, and reads that.
    pub(crate) fn question<T>(
        &mut self,
        message: Message,
        decode: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&message.finish(sequence, 0))?;
        loop {
            let length = self.receive()?;
            let received = self.buffer.get(..length).unwrap_or_default();
            let mut answers = message::messages(received);
            let Some(answer) = answers.find(|answer| answer.sequence == sequence) else {
                continue;
            };
            return match answer.errno() {
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Ok(decode(answer.body)),
            };
        }
    }

    /// Asks for all objects of a kind, and keeps what `decode` makes of each. Starts again if they change meanwhile.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Message,
        mut decode: impl FnMut(&Received<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut list = Vec::new();
        for _attempt in 0..MAX_DUMP_ATTEMPTS {
            list.clear();
            if self.dump_once(message.clone(), &mut |received| {
                list.extend(decode(received))
            })? {
                break;
            }
        }
        // A list that changes during every attempt is taken as the last attempt read it.
        Ok(list)
    }

    /// Dumps once. Gives `false` if the list changed while it was dumped.
    fn dump_once(
        &mut self,
        message: Message,
        take: &mut dyn FnMut(&Received<'_>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&message.finish(sequence, flags::DUMP))?;
        let mut unchanged = true;
        loop {
            let length = self.receive()?;
            let received = self.buffer.get(..length).unwrap_or_default();
            for answer in message::messages(received) {
                if answer.sequence != sequence {
                    continue;
                }
                unchanged &= answer.flags & flags::INTERRUPTED == 0;
                match answer.errno() {
                    Some(0) => return Ok(unchanged),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    None if answer.kind == DONE => return Ok(unchanged),
                    None => take(&answer),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent_bytes = rustix::io::retry_on_intr(|| {
            rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel)
        })?;
        if sent_bytes == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Receives one datagram into the buffer.
    fn receive(&mut self) -> io::Result<usize> {
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC)
        })?;
        if length > self.buffer.len() {
            // With this flag the kernel tells how long it was.
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(length)
    }
}
