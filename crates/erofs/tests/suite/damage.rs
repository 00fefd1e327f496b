//! Images with wrong bytes: an error or another tree, in bounded time and memory, and never a panic.

use std::io;

use erofs::{BlockSize, Image, ReadAt, ReadError};

use crate::model::{Model, Numbers};

fn sample() -> Vec<u8> {
    Model::random(3, 60, BlockSize::TAR).image(BlockSize::TAR).0
}

#[test]
fn an_image_that_ends_early_is_damaged() {
    let bytes = sample();
    let whole = Image::open(bytes.as_slice()).unwrap().check().unwrap();
    for length in (0..bytes.len()).step_by(97) {
        match Image::open(&bytes[..length]).and_then(|image| image.check()) {
            // What is missing is the fill up to a whole page.
            Ok(summary) => assert_eq!(summary, whole, "{length}"),
            Err(ReadError::NoImage | ReadError::Damaged { .. }) => {}
            Err(error) => panic!("{length}: {error}"),
        }
    }
}

#[test]
fn wrong_bytes_end_in_an_error_or_another_tree() {
    let original = sample();
    let mut numbers = Numbers(11);
    let (mut refused, rounds) = (0, 20_000);
    for _ in 0..rounds {
        let mut bytes = original.clone();
        let length = u64::try_from(bytes.len()).unwrap();
        for _ in 0..=numbers.below(3) {
            let at = 1024 + numbers.below(length - 1024);
            let values = [0, 1, 0x7f, 0xff, numbers.below(256)];
            let value = values[usize::try_from(numbers.below(5)).unwrap()];
            bytes[usize::try_from(at).unwrap()] = u8::try_from(value).unwrap();
        }
        let Ok(image) = Image::open(bytes.as_slice()) else {
            refused += 1;
            continue;
        };
        if image.check().is_err() {
            refused += 1;
        }
    }
    // Owners, times, names and targets may be anything; most of the rest contradicts something.
    assert!(refused > rounds / 5, "{refused} of {rounds}");
}

#[test]
fn what_is_no_image_is_not_opened() {
    let mut unknown_feature = sample();
    unknown_feature[1024 + 80] |= 1;
    let mut block_size = sample();
    block_size[1024 + 12] = 13;
    for bytes in [vec![], vec![0; 4096], unknown_feature, block_size] {
        let error = Image::open(bytes.as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "this is no index of a layer");
    }
}

#[test]
fn a_damaged_inode_is_named_with_what_is_wrong() {
    let mut model = Model::new();
    model.file(b"/file", b"content", BlockSize::TAR);
    let (original, _) = model.image(BlockSize::TAR);
    // After 1,280 bytes of superblock and device table the inodes begin with the next block: the root, then the file.
    let (root, file) = (1536, 1536 + 128);
    let cases = [
        (root, 0x02, "inode 0: its form is unknown"),
        (root + 5, 0x00, "inode 0: its type is wrong"),
        (root + 44, 9, "inode 0: the number of its links is wrong"),
        (root + 8, 0x10, "inode 0: its entries are wrong"),
        (root + 64, 99, "inode 0: its entries are wrong"),
        (file, 0x01, "inode 4: its places are wrong"),
        (file + 16, 0x00, "inode 4: its places are wrong"),
        (file + 44, 2, "inode 4: the number of its links is wrong"),
        (file + 66, 2, "inode 4: its places are wrong"),
        (file + 5, 0x10, "inode 4: its type is wrong"),
    ];
    for (at, value, message) in cases {
        let mut bytes = original.clone();
        assert_ne!(bytes[at], value, "{at}");
        bytes[at] = value;
        let error = Image::open(bytes.as_slice()).unwrap().check().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the index is damaged: {message}"),
            "{at}"
        );
    }
}

/// A disk that fails from one byte on.
struct Failing(Vec<u8>, u64);

impl ReadAt for Failing {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset >= self.1 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.as_slice().read_exact_at(bytes, offset)
    }
}

#[test]
fn a_disk_that_fails_is_not_taken_for_a_damaged_index() {
    for first_failing in [0, 1024, 1536, 1700] {
        let opened = Image::open(Failing(sample(), first_failing));
        let error = opened.and_then(|image| image.check()).unwrap_err();
        let message = "cannot read the index: Input/output error (os error 5)";
        assert_eq!(error.to_string(), message, "{first_failing}");
    }
}
