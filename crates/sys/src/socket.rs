//! Messages with descriptors over unix sockets that keep message borders, and sockets as others ask for them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    self as rx, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer,
};
use rustix::net::{SendAncillaryMessage, SendFlags, SocketFlags, SocketType};

use crate::raw;

/// The most descriptors one message carries, the kernel's `SCM_MAX_FD`.
pub const MAX_FDS: usize = 253;

/// Makes two connected sockets of type SOCK_SEQPACKET. socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rx::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message. sendmsg(2) with SCM_RIGHTS; a closed peer is an error, not a signal.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rx::sendmsg(
            socket.as_fd(),
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::WriteZero))
    }
}

/// Receives one message into `buffer`: its length and descriptors. Nothing at all means the peer is gone. recvmsg(2).
///
/// A message cut short by the buffer is an error.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rx::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok((message.bytes, fds))
}

/// Makes a socket of any family, type and protocol; `kind` may carry SOCK_NONBLOCK, and the descriptor is closed at exec. socket(2).
pub fn open(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    raw::owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }.into())
}

/// Binds a socket to an address of any family, in the kernel's layout. bind(2).
pub fn bind(socket: impl AsFd, address: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes, which are there, and copies them before it looks at them as an address.
    let ret = unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            address.as_ptr().cast::<libc::sockaddr>(),
            length,
        )
    };
    raw::check(ret.into()).map(drop)
}

/// The family that a socket was made with. getsockopt(2) SO_DOMAIN; `ENOTSOCK` for what is no socket.
pub fn family(socket: impl AsFd) -> io::Result<i32> {
    Ok(rx::sockopt::socket_domain(socket)?.as_raw().into())
}
