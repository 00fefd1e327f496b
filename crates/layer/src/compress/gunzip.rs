//! Reading gzip as `gzip` and `pigz` do.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// A gzip whose bytes are not those that its checksum is of.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("corrupt gzip stream")]
pub(crate) struct Corrupt;

impl From<Corrupt> for io::Error {
    fn from(error: Corrupt) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Several gzip members, one after the other. What follows the last of them and is none, padding for instance, is read and
/// left out.
#[derive(Debug)]
pub(super) struct Gunzip<R: BufRead> {
    member: Option<GzDecoder<R>>,
    is_first: bool,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            member: Some(GzDecoder::new(input)),
            is_first: true,
        }
    }

    fn leave_out(input: &mut R) -> io::Result<()> {
        let bytes = io::copy(input, &mut io::sink())?;
        tracing::warn!(bytes, "bytes after the end of a gzip left out");
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(mut member) = self.member.take() {
            match member.read(buffer) {
                Ok(0) => {}
                Ok(n) => {
                    self.member = Some(member);
                    return Ok(n);
                }
                // What stands in the place of a second header and is none.
                Err(e) if !self.is_first && member.header().is_none() && is_format(&e) => {
                    Self::leave_out(&mut member.into_inner())?;
                    return Ok(0);
                }
                Err(e) => {
                    let corrupt = member.header().is_some() && is_invalid(&e);
                    if e.kind() == io::ErrorKind::Interrupted {
                        self.member = Some(member);
                    }
                    return Err(if corrupt { Corrupt.into() } else { e });
                }
            }
            let mut input = member.into_inner();
            match input.fill_buf()?.first() {
                None => {}
                Some(0x1f) => {
                    self.is_first = false;
                    self.member = Some(GzDecoder::new(input));
                }
                Some(_) => Self::leave_out(&mut input)?,
            }
        }
        Ok(0)
    }
}

fn is_invalid(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
    )
}

fn is_format(error: &io::Error) -> bool {
    is_invalid(error) || error.kind() == io::ErrorKind::UnexpectedEof
}
