use proptest::prelude::*;

use super::*;

/// A file tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
    Directory(std::collections::BTreeMap<Vec<u8>, Self>),
}

fn write(tree: &Tree, writer: &mut Writer) -> Result<(), std::convert::Infallible> {
    match tree {
        Tree::File { executable, contents } => {
            writer.file(*executable, contents.len() as u64)?;
            if !contents.is_empty() {
                writer.data(contents)?;
            }
            writer.file_end()
        }
        Tree::Symlink(target) => writer.symlink(target),
        Tree::Directory(entries) => {
            writer.directory()?;
            for (name, tree) in entries {
                writer.entry(name)?;
                write(tree, writer)?;
            }
            writer.leave()
        }
    }
}

fn nar(tree: &Tree) -> Vec<u8> {
    let mut writer = Writer::default();
    write(tree, &mut writer).unwrap();
    writer.bytes
}

/// Reads a NAR in pieces of these sizes, over and over, and writes what was understood.
fn again(bytes: &[u8], pieces: &[usize]) -> Result<Vec<u8>, ParseError<std::convert::Infallible>> {
    let (mut parser, mut writer, mut rest) = (Parser::default(), Writer::default(), bytes);
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
        parser.feed(piece, &mut writer)?;
        rest = left;
    }
    parser.finish()?;
    Ok(writer.bytes)
}

fn file(contents: &[u8]) -> Tree {
    Tree::File { executable: false, contents: contents.to_vec() }
}

/// A directory as bytes, whatever the names are.
fn directory(names: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.directory().unwrap();
    for name in names {
        writer.entry(name).unwrap();
        write(&file(b"x"), &mut writer).unwrap();
    }
    writer.leave().unwrap();
    writer.bytes
}

#[test]
fn a_file_is_written_as_nix_writes_it() {
    // nix-store --dump of a file that holds "hi\n".
    let expected = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\
        \x04\0\0\0\0\0\0\0type\0\0\0\0\x07\0\0\0\0\0\0\0regular\0\x08\0\0\0\0\0\0\0contents\
        \x03\0\0\0\0\0\0\0hi\n\0\0\0\0\0\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0";
    assert_eq!(nar(&file(b"hi\n")), expected);
}

#[test]
fn names_that_could_escape_or_clash_are_damage() {
    for names in [
        &[b"..".as_slice()] as &[&[u8]],
        &[b"."],
        &[b""],
        &[b"a/b"],
        &[b"/etc"],
        &[b"a\0b"],
        &[b"b", b"a"],
        &[b"a", b"a"],
        &[&[b'x'; 256]],
    ] {
        let error = again(&directory(names), &[4096]).unwrap_err();
        assert!(matches!(error, ParseError::Damaged { .. }), "{names:?}");
    }
    assert!(again(&directory(&[b"...", b"A", b"a"]), &[4096]).is_ok());
}

#[test]
fn a_stream_that_lies_about_its_sizes_takes_no_memory() {
    let mut bytes = nar(&Tree::Symlink(b"x".to_vec()));
    let at = bytes.windows(6).position(|window| window == b"target").unwrap() + 8;
    bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut parser = Parser::default();
    assert!(parser.feed(&bytes, &mut Writer::default()).is_err());
    assert!(parser.partial.capacity() < 10_000);

    // A file that claims to be huge is handed on as it comes, and ends as damaged.
    let mut writer = Writer::default();
    writer.file(true, u64::MAX - 5).unwrap();
    writer.data(b"abc").unwrap();
    let error = again(&writer.bytes, &[7]).unwrap_err();
    assert!(matches!(error, ParseError::Damaged { reason: "it breaks off", .. }));
}

#[test]
fn directories_end_somewhere() {
    let mut writer = Writer::default();
    for _ in 0..DEEPEST + 1 {
        writer.directory().unwrap();
        writer.entry(b"a").unwrap();
    }
    assert!(again(&writer.bytes, &[4096]).is_err());
}

#[test]
fn every_cut_and_every_addition_is_damage() {
    let bytes = nar(&Tree::Directory(
        [
            (b"a".to_vec(), file(b"12345")),
            (b"b".to_vec(), Tree::Symlink(b"/x".to_vec())),
            (b"c".to_vec(), Tree::Directory(Default::default())),
        ]
        .into(),
    ));
    for end in 0..bytes.len() {
        assert!(again(&bytes[..end], &[4096]).is_err(), "cut at {end}");
    }
    assert!(again(&[bytes.as_slice(), b"\0"].concat(), &[4096]).is_err());
}

fn tree() -> impl Strategy<Value = Tree> {
    let contents = prop::collection::vec(any::<u8>(), 0..40);
    let leaf = prop_oneof![
        (any::<bool>(), contents).prop_map(|(executable, contents)| Tree::File { executable, contents }),
        prop::collection::vec(1_u8.., 1..20).prop_map(Tree::Symlink),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop::collection::btree_map("[a-z~.A-Z]{1,9}x".prop_map(String::into_bytes), inner, 0..6)
            .prop_map(Tree::Directory)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_any_pieces(tree in tree(), pieces in prop::collection::vec(1_usize..30, 1..5)) {
        let bytes = nar(&tree);
        prop_assert_eq!(again(&bytes, &pieces).unwrap(), bytes);
    }

    #[test]
    fn a_changed_byte_is_damage_or_another_tree(tree in tree(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = nar(&tree);
        let at = at.index(bytes.len());
        bytes[at] = to;
        // What is understood is what stands there: nothing is passed over.
        if let Ok(again) = again(&bytes, &[4096]) {
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = again(&bytes, &[13]);
    }
}
