//! What `phoenix run` adds to Nix's own time: 200 derivations of 0.1 s, side by side with
//! `nix-store --realise` of the same derivations, each time into a fresh store.
//!
//! `cargo bench --package phoenix-cli --bench overhead`. Pairs run in turn, and the ratio is that of each
//! pair: these figures hold on a machine whose speed drifts.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use phoenix_testkit::{NixRoot, PREAMBLE};

const PAIRS: usize = 5;
const DERIVATIONS: usize = 200;

fn main() {
    let mut whole = Vec::new();
    let mut build = Vec::new();
    for pair in 0..PAIRS {
        let (instantiate, realise) = plain_nix();
        let phoenix = phoenix();
        println!(
            "pair {}: nix-instantiate {instantiate:.2} s + nix-store --realise {realise:.2} s; phoenix run {phoenix:.2} s",
            pair + 1
        );
        whole.push(phoenix / (instantiate + realise));
        build.push(phoenix / realise);
    }
    println!("{DERIVATIONS} derivations of 0.1 s, 2 at a time");
    println!("phoenix run / (nix-instantiate + nix-store --realise): {}", shown(&mut whole));
    println!("phoenix run, evaluation and all / nix-store --realise alone: {}", shown(&mut build));
}

fn shown(ratios: &mut [f64]) -> String {
    ratios.sort_by(f64::total_cmp);
    let (low, median, high) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
    format!("{median:.3} (median of {}; {low:.3} to {high:.3})", ratios.len())
}

/// A fresh store, and a file with 200 derivations in it: 20 chains of ten.
fn world() -> (NixRoot, String) {
    let root = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let text = format!(
        "let {PREAMBLE}
          chain = c: builtins.foldl' (before: n: d \"c${{toString c}}-${{toString n}}\" \"sleep 0.1; echo x > $out\" {{ inherit before; }}) null (builtins.genList (n: n) {});
        in builtins.listToAttrs (builtins.genList (c: {{ name = \"c${{toString c}}\"; value = chain c; }}) 20)",
        DERIVATIONS / 20
    );
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let file = root.path("home/default.nix");
    std::fs::write(&file, text.replace("SYSTEM", &format!("{}-{os}", std::env::consts::ARCH)))
        .expect("a file");
    (root, file.display().to_string())
}

fn plain_nix() -> (f64, f64) {
    let (root, file) = world();
    let start = Instant::now();
    let derivations = root.run("nix-instantiate", &[&file]);
    let instantiate = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let status = root
        .command("nix-store")
        .arg("--realise")
        .args(derivations.lines())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("nix-store");
    assert!(status.success(), "nix-store failed");
    (instantiate, start.elapsed().as_secs_f64())
}

fn phoenix() -> f64 {
    let (root, file) = world();
    let start = Instant::now();
    let output =
        root.command(env!("CARGO_BIN_EXE_phoenix")).args(["run", "-f", &file]).output().expect("phoenix");
    let seconds = start.elapsed().as_secs_f64();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains(&format!("{DERIVATIONS} derivations built")),
        "{stderr}"
    );
    seconds
}
