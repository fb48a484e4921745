//! Directories without the check that protects them, what they say of others, and plans to collect them.
#![no_main]

use phoenix_pack::{Catalog, Collection, Directory, Goal, Others, PackInfo};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(Others::decode(bytes));
    let Ok(directory) = Directory::parse(bytes.to_vec()) else { return };
    let mut catalog = Catalog::default();
    let info = PackInfo { size: bytes.len() as u64, created: 1 };
    for name in ["a", "b"] {
        let _ = catalog.add(name, info, directory.clone());
    }
    for name in catalog.names() {
        let located = name.as_bytes().first_chunk().and_then(|hash_part| catalog.locate(hash_part));
        if let Some(located) = located {
            assert_eq!(located.pieces.iter().map(|piece| u64::from(piece.length)).sum::<u64>(), located.info.nar_size);
        }
    }
    for budget in [0, 1000, u64::MAX] {
        let goal = Goal {
            budget,
            now: 10,
            keep: [].into(),
            alive: 10,
            grace: 0,
            packs: 0,
            outside: [].into(),
        };
        let plan = Collection::plan(&mut catalog, &goal);
        drop(plan.paths(&catalog));
        drop(plan.statement(&catalog, "f").encode());
    }
});
