//! Content addresses: store paths that follow from their contents
//! (nix `src/libstore/store-dir-config.cc`, `makeFixedOutputPath`, `makeTextPath`).

use sha2::{Digest, Sha256};

use data_encoding::HEXLOWER;
use phoenix_model::{hash_part, kind_of_path};

use crate::PathInfo;
use crate::hash::Hash;

/// Whether the path is the one that follows from the content address and the references it is said to have.
///
/// Nix then asks for no signature: whoever serves the path can only serve the contents that its hash
/// stands for, and Nix checks those against the content address when they come in. A content address
/// from which another path follows counts for nothing, as in Nix.
#[must_use]
pub fn is_content_addressed(info: &PathInfo) -> bool {
    let path = &info.store_path;
    info.content_address
        .as_deref()
        .and_then(|address| fingerprint(address, info))
        .is_some_and(|fingerprint| hash_part(&fingerprint, path.store_dir(), path.name()) == path.hash_part())
}

/// The type and the hash from which the path is made: `source:REFERENCES:sha256:HEX` and the like.
fn fingerprint(address: &str, info: &PathInfo) -> Option<String> {
    let own = info.store_path.as_str();
    let mut references = info.sorted_references();
    let refers_to_itself = references.iter().any(|reference| reference == own);
    references.retain(|reference| reference != own);
    if let Some(hash) = address.strip_prefix("text:") {
        let hash = Hash::parse(hash).filter(|hash| hash.sha256().is_some() && !refers_to_itself)?;
        return Some(format!("{}:{}", typed("text", &references, false), hash.in_base16()));
    }
    let fixed = address.strip_prefix("fixed:")?;
    let (method, hash) = match (fixed.strip_prefix("r:"), fixed.strip_prefix("git:")) {
        (Some(hash), _) => ("r:", hash),
        (_, Some(hash)) => ("git:", hash),
        _ => ("", fixed),
    };
    let hash = Hash::parse(hash)?;
    if method == "r:" && hash.sha256().is_some() {
        return Some(format!("{}:{}", typed("source", &references, refers_to_itself), hash.in_base16()));
    }
    let no_references = references.is_empty() && !refers_to_itself;
    let inner = Sha256::digest(format!("fixed:out:{method}{}:", hash.in_base16()));
    no_references.then(|| format!("output:out:sha256:{}", HEXLOWER.encode(&inner)))
}

fn typed(kind: &str, references: &[String], refers_to_itself: bool) -> String {
    kind_of_path(kind, references.iter().map(String::as_str), refers_to_itself)
}

#[cfg(test)]
mod tests {
    use phoenix_model::StorePath;

    use super::*;

    fn info(path: &str, address: &str, references: &[&str]) -> PathInfo {
        PathInfo {
            store_path: StorePath::parse(path).unwrap(),
            nar_hash: String::new(),
            nar_size: 1,
            references: references.iter().map(|&reference| reference.to_owned()).collect(),
            signatures: Vec::new(),
            content_address: Some(address.to_owned()),
        }
    }

    // All made by Nix: `nix-store --add`, `--add-fixed`, `builtins.toFile`, `nix store make-content-addressed`.
    const IN_NIX_STORE: [(&str, &str); 4] = [
        (
            "ab3li50xq0nl4q5lxdyinb8w8y13my9s-f",
            "fixed:r:sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h",
        ),
        (
            "hrbblgbxbvz8al5a8l85i8giajyajiwj-f",
            "fixed:sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq",
        ),
        ("miyzd4rdj1idrrzcmmlphhh8g1m3npgb-f", "fixed:sha1:fd540npwk7x370s4s2jzpx74wf365jjm"),
        (
            "z8gvxqkj1glc9ga70wpaschf9c5hw3d7-f",
            "fixed:r:sha512:28z0zkd9vf0lpfdxx0wq0qj3852bj1x6d2jx73wknv7yighyzic0p3xsr1vwmc5zj0ismm9g3lqgczckyydyxrrifx1ljh4j5x44r1q",
        ),
    ];
    const TEXT: &str = "text:sha256:0hwpd5mz43ay1jrdsxm5ph8va75y3hwb3asgm8nc5nv1p7q34h2s";
    const TEXT_PATH: &str = "/opt/example/store/wnl84cm2gzb4050wk1l519q6i5yq7j57-u";
    const SELF: &str = "fixed:r:sha256:0chxzp4m9zbd2k84lrwhcv4qxlk17kdwdkwrqf31kg92l602srf4";
    const SELF_PATH: &str = "/opt/example/store/yiwlpvhc37b3dbynld0z5qmrq7s9y8l6-self";
    const SELF_REFERENCES: [&str; 3] = [
        "yiwlpvhc37b3dbynld0z5qmrq7s9y8l6-self",
        "f6yz01ymbqy8b7wnz31v86nvy5h3fkli-t",
        "8g03bdbkqjc9168qabn4kziajx0jrzwp-u",
    ];

    #[test]
    fn paths_follow_from_their_contents_as_in_nix() {
        for (name, address) in IN_NIX_STORE {
            assert!(is_content_addressed(&info(&format!("/nix/store/{name}"), address, &[])), "{address}");
        }
        assert!(is_content_addressed(&info(TEXT_PATH, TEXT, &["gh2k1y3b2p222ra9h18wqc4yhj29qyzn-t"])));
        assert!(is_content_addressed(&info(SELF_PATH, SELF, &SELF_REFERENCES)));
    }

    #[test]
    fn a_claim_that_does_not_hold_counts_for_nothing() {
        assert!(!is_content_addressed(&info(TEXT_PATH, TEXT, &[])), "a reference less");
        assert!(!is_content_addressed(&info(SELF_PATH, SELF, &SELF_REFERENCES[1..])), "not of itself");
        for (name, address) in IN_NIX_STORE {
            let path = format!("/nix/store/{name}");
            let refers = ["gh2k1y3b2p222ra9h18wqc4yhj29qyzn-t"];
            assert!(!is_content_addressed(&info(&path, address, &refers)), "a reference more: {address}");
            assert!(
                !is_content_addressed(&info(&format!("{path}2"), address, &[])),
                "another name: {address}"
            );
            assert!(
                !is_content_addressed(&info(&format!("/other/{name}"), address, &[])),
                "another store: {address}"
            );
            let other = IN_NIX_STORE.iter().find(|(other, _)| *other != name).unwrap().1;
            assert!(!is_content_addressed(&info(&path, other, &[])), "another hash: {address}");
            for bad in
                ["", "fixed:", "fixed:r:", "text:", "text:sha256:00", "fixed:r:sha256", "other:sha256:00"]
            {
                assert!(!is_content_addressed(&info(&path, bad, &[])), "{bad}");
            }
            assert!(!is_content_addressed(&PathInfo { content_address: None, ..info(&path, "", &[]) }));
        }
    }
}
