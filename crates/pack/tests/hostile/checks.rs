//! What has to hold for any bytes. The fuzz targets in `fuzz/` run the same.

use phoenix_pack::nar::{ParseError, Parser, Sink, Writer};
use phoenix_pack::{
    Catalog, FOOTER, Footer, Located, PackError, PackInfo, Patch, PathInfo, PutBack, open_frame,
};

/// Takes an archive in, whole and in pieces: both end the same, and what is taken is written as it was.
pub(crate) fn nar(bytes: &[u8]) {
    let parse = |piece: usize| -> Result<Vec<u8>, ParseError<std::convert::Infallible>> {
        let (mut parser, mut writer) = (Parser::default(), Writer::default());
        for piece in bytes.chunks(piece) {
            parser.feed(piece, &mut writer)?;
        }
        parser.finish::<std::convert::Infallible>()?;
        Ok(writer.bytes)
    };
    let whole = parse(bytes.len().max(1));
    let pieces = parse(7);
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let Ok(written) = whole {
        assert!(written == bytes, "an archive was taken that Nix would write otherwise");
    }
}

/// Opens a pack, and everything in it.
///
/// # Errors
/// When it is none.
pub(crate) fn pack(bytes: &[u8]) -> Result<(), PackError> {
    let tail = &bytes[bytes.len().saturating_sub(FOOTER + 100)..];
    let footer = Footer::parse(tail, bytes.len() as u64)?;
    let range = footer.directory.start as usize..footer.directory.end as usize;
    let directory = footer.open(&bytes[range])?;
    let read = directory.clone();
    for number in 0..directory.frames() {
        let frame = directory.frame(number);
        // That it lies in the pack was looked at.
        let stored = &bytes[frame.offset as usize..][..frame.stored as usize];
        if let Ok(bytes) = open_frame(&frame, stored) {
            assert_eq!(bytes.len(), frame.length as usize);
        }
        if let Ok(chunks) = directory.chunks_of(number) {
            assert!(chunks.iter().all(|(at, chunk)| at + chunk.length <= frame.length));
        }
    }
    let mut catalog = Catalog::default();
    let info = PackInfo { size: bytes.len() as u64, created: 1 };
    if catalog.add("a", info, directory).is_err() {
        return Ok(());
    }
    let _ = catalog.add("b", info, read);
    drop(catalog.statement().encode());
    for name in catalog.names() {
        if let Some(located) = name.as_bytes().first_chunk().and_then(|hash_part| catalog.locate(hash_part)) {
            let size: u64 = located.pieces.iter().map(|piece| u64::from(piece.length)).sum();
            assert_eq!(size, located.info.nar_size, "the pieces of a path are as long as it");
            restore(&located);
        }
    }
    Ok(())
}

/// Puts a path together of zeros: as many bytes come out as went in.
fn restore(located: &Located) {
    let mut put_back = PutBack::new(located);
    let (mut came, zeros) = (0, [0; 4096]);
    for piece in &located.pieces {
        let mut left = piece.length as usize;
        while left > 0 {
            let part = left.min(zeros.len());
            let put = put_back.piece(&zeros[..part], &mut |out: &[u8]| {
                came += out.len() as u64;
                Ok::<(), std::convert::Infallible>(())
            });
            assert!(put.is_ok());
            left -= part;
        }
    }
    assert_eq!(came, located.info.nar_size);
}

/// Puts hash parts back at any places, in pieces of any length.
pub(crate) fn put_back(bytes: &[u8]) {
    let (places, archive) = bytes.split_at(bytes.len() / 2);
    let references = vec![format!("{:032}-a", 1), "short".to_owned()];
    let mut at = 0_u64;
    let patches = places.iter().map(|place| {
        at += 32 + u64::from(place >> 1);
        Patch { at: at - 32, reference: u32::from(place & 3) }
    });
    let info = PathInfo {
        name: format!("{:032}-p", 2),
        nar_hash: [0; 32],
        nar_size: archive.len() as u64,
        references,
        deriver: None,
        signatures: vec![],
        ca: None,
    };
    let located = Located { info, patches: patches.collect(), pieces: vec![] };
    let make = |piece: usize| {
        let (mut put_back, mut made) = (PutBack::new(&located), Vec::new());
        for piece in archive.chunks(piece.max(1)) {
            let put = put_back.piece(piece, &mut |out: &[u8]| {
                made.extend_from_slice(out);
                Ok::<(), std::convert::Infallible>(())
            });
            assert!(put.is_ok());
        }
        made
    };
    let whole = make(archive.len());
    assert_eq!(whole.len(), archive.len());
    assert_eq!(whole, make(5));
}

/// Whatever a sink is told is what an archive can hold.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// How many bytes of files came.
    pub(crate) data: u64,
}

impl Sink for Counting {
    type Error = std::convert::Infallible;

    fn directory(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<(), Self::Error> {
        assert!(!name.is_empty() && name != b"." && name != b"..");
        assert!(!name.contains(&b'/') && !name.contains(&0));
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn file(&mut self, _: bool, _: u64) -> Result<(), Self::Error> {
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.data += bytes.len() as u64;
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn symlink(&mut self, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Takes an archive in for its names alone: none of them escapes.
pub(crate) fn names(bytes: &[u8]) {
    let (mut parser, mut sink) = (Parser::default(), Counting::default());
    drop(parser.feed(bytes, &mut sink));
    assert!(sink.data <= bytes.len() as u64);
}
