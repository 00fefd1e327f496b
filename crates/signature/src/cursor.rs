//! Reads numbers and slices from the front of bytes.

/// The unread rest of some bytes. Each method takes from the front, and returns `None` if too little is left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn remaining(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, remaining) = self.0.split_at_checked(length)?;
        self.0 = remaining;
        Some(slice)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, remaining) = self.0.split_first_chunk()?;
        self.0 = remaining;
        Some(*array)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A slice behind its length in four bytes, as SSH writes strings.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    /// An OpenPGP integer: its length in bits, then its bytes; without the zeros at its front.
    pub(crate) fn mpi(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.u16()?);
        self.take(bits.div_ceil(8)).map(without_zeros)
    }
}

/// The bytes of a number without zeros at its front.
pub(crate) fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.split_at(zeros).1
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn what_is_not_there_is_not_taken() {
        let mut cursor = Cursor::new(&[0, 0, 0, 3, 1, 2]);
        assert_eq!(cursor.string(), None);
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff]).string(), None);
        assert_eq!(Cursor::new(&[0, 17, 1, 2]).mpi(), None);
        let mut cursor = Cursor::new(&[0, 9, 0, 7, 5]);
        assert_eq!(cursor.mpi(), Some(&[7][..]));
        assert_eq!(cursor.u16(), None);
        assert_eq!((cursor.u8(), cursor.u8()), (Some(5), None));
        assert!(cursor.is_empty() && cursor.remaining().is_empty());
    }
}
