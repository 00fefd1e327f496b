//! Contents that lie in pieces, far away, or nowhere.

use erofs::{
    Attributes, BlockSize, Content, Device, Extent, Image, Limits, Node, Tree, WriteError,
    WriteOptions, write,
};

const KIB: u64 = 1024;
const TIB: u64 = 1 << 40;

fn one_file(content: Content, devices: &[u64]) -> Result<Vec<u8>, WriteError> {
    let mut tree = Tree::new(Attributes::default(), Limits::default()).unwrap();
    let attributes = Attributes::default();
    let root = tree.root();
    tree.add(
        root,
        b"file",
        Node {
            attributes,
            content,
        },
    )
    .unwrap();
    let devices: Vec<Device> = devices.iter().map(|size| Device { size: *size }).collect();
    let options = WriteOptions {
        block_size: BlockSize::TAR,
        devices: &devices,
    };
    let mut image = Vec::new();
    write(&tree, options, &mut image)?;
    Ok(image)
}

fn part(file_offset: u64, length: u64, device: u16, device_offset: u64) -> Extent {
    Extent {
        file_offset,
        length,
        device,
        device_offset,
    }
}

#[test]
fn the_parts_of_a_file_are_read_as_they_were_given() {
    let devices = [6 << 30, 2 * TIB - KIB];
    let cases: [(&str, u64, Vec<Extent>); 7] = [
        ("one piece", 1000, vec![part(0, 1000, 1, 512)]),
        ("more than 4 GiB", 5 << 30, vec![part(0, 5 << 30, 1, 0)]),
        (
            "a terabyte, far away",
            TIB,
            vec![part(0, TIB, 2, TIB - 2 * KIB)],
        ),
        ("only a hole", 700, vec![]),
        ("a hole first", 4 * KIB + 5, vec![part(4 * KIB, 5, 1, 0)]),
        ("a hole last", 9 * KIB, vec![part(0, KIB, 1, 0)]),
        (
            "two devices and holes",
            20 * KIB,
            vec![
                part(KIB, KIB, 2, 0),
                part(2 * KIB, KIB, 1, 0),
                part(16 * KIB, 2 * KIB, 1, 5 * KIB),
            ],
        ),
    ];
    for (what, size, extents) in cases {
        let content = Content::SparseFile {
            size,
            extents: extents.clone().into(),
        };
        let bytes = one_file(content, &devices).unwrap();
        let image = Image::open(bytes.as_slice()).unwrap();
        image.check().unwrap();
        let file = image
            .lookup(&image.root().unwrap(), b"file")
            .unwrap()
            .unwrap();
        assert_eq!(file.size, size, "{what}");
        assert_eq!(image.extents(&file).unwrap(), extents, "{what}");
        assert_eq!(image.devices(), 2);
    }
}

#[test]
fn a_place_that_cannot_be_named_is_refused() {
    let cases: [(&str, u64, Vec<Extent>, &str); 11] = [
        (
            "within a block",
            100,
            vec![part(0, 100, 1, 3)],
            "the content at byte 3 of device 1 is not on the borders of blocks",
        ),
        (
            "a part that begins within a block",
            2000,
            vec![part(100, 412, 1, 0)],
            "the content at byte 0 of device 1 is not on the borders of blocks",
        ),
        (
            "a part that ends within a block",
            2000,
            vec![part(0, 100, 1, 0)],
            "the content at byte 0 of device 1 is not on the borders of blocks",
        ),
        (
            "over the end",
            100,
            vec![part(0, 200, 1, 0)],
            "the parts of a file of 100 bytes contradict each other",
        ),
        (
            "over each other",
            2048,
            vec![part(0, 1024, 1, 0), part(512, 512, 1, 0)],
            "the parts of a file of 2048 bytes contradict each other",
        ),
        (
            "past the numbers",
            2048,
            vec![part(512, u64::MAX, 1, 0)],
            "the parts of a file of 2048 bytes contradict each other",
        ),
        (
            "no device",
            100,
            vec![part(0, 100, 4, 0)],
            "the content at byte 0 of device 4 is outside of it",
        ),
        (
            "the image itself",
            100,
            vec![part(0, 100, 0, 0)],
            "the content at byte 0 of device 0 is outside of it",
        ),
        (
            "in a block that the device cuts",
            100,
            vec![part(0, 100, 3, 0)],
            "the content at byte 0 of device 3 is outside of it",
        ),
        (
            "behind the device",
            1000,
            vec![part(0, 1000, 1, 1 << 20)],
            "the content at byte 1048576 of device 1 is outside of it",
        ),
        (
            "two terabytes and more",
            1000,
            vec![part(0, 1000, 2, 2 * TIB)],
            "the content at byte 2199023255552 of device 2 is outside of it",
        ),
    ];
    for (what, size, extents, message) in cases {
        let content = Content::SparseFile {
            size,
            extents: extents.into(),
        };
        let error = one_file(content, &[1 << 20, 2 * TIB - KIB, 100]).unwrap_err();
        assert_eq!(error.to_string(), message, "{what}");
    }
}

#[test]
fn a_file_that_the_format_cannot_hold_is_refused() {
    let far = part(512, 512, 1, 0);
    let cases = [
        (
            Content::SparseFile {
                size: u64::MAX,
                extents: Box::new([]),
            },
            "a file of 18446744073709551615 bytes is too large",
        ),
        (
            Content::SparseFile {
                size: 1 << 50,
                extents: Box::new([]),
            },
            "a file of 1125899906842624 bytes is too large",
        ),
        (
            Content::SparseFile {
                size: TIB,
                extents: Box::new([far]),
            },
            "a file of 1099511627776 bytes in 2147483648 pieces is too fragmented",
        ),
    ];
    for (content, message) in cases {
        let error = one_file(content, &[1 << 20]).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
