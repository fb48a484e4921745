// Runs as a page has to show them: one with everything, one of a hostile flake, one that is large.
const start = 1_700_000_000_000;

const hash = (at) => String(at).padStart(8, "0").repeat(4);
const drv = (at, name) => `/nix/store/${hash(at)}-${name}.drv`;

/** Takes in events; `seconds` count from the beginning of the run. */
function recording() {
  const events = [];
  return { events, add: (seconds, event) => events.push({ at: start + Math.round(seconds * 1000), ...event }) };
}

function begin(add, installables) {
  add(0, { event: "runStarted", schema: 1, phoenix: "0.1.0", nix: "2.26.3", systems: ["x86_64-linux"], installables });
  add(0.2, { event: "stageStarted", stage: "evaluate" });
}

const target = (id, attrPath, drvPath, name) =>
  ({ event: "targetFound", target: { id, source: ".", attrPath, kind: drvPath ? "derivation" : "unknown", name, system: drvPath && "x86_64-linux", drvPath } });

/** Three runners build 60 derivations; one fails and blocks others, much is cached. */
export function everything() {
  const { events, add } = recording();
  begin(add, ["github:example/infrastructure"]);
  const names = ["openssl-3.0.13", "zlib-1.3.1", "curl-8.7.1", "libgit2-1.7.2", "sqlite-3.45", "postgresql-16.2"];
  const count = 60;
  const name = (at) => (at < names.length ? names[at] : `service-${at}-0.${at % 9}.1`);
  const path = (at) => drv(at, name(at));
  for (let at = 0; at < count; at++) add(3, target(at, ["packages", "x86_64-linux", `${name(at).replace(/-\d.*/, "")}-${at}`], path(at), name(at)));
  for (let at = 0; at < 40; at++) add(3, target(100 + at, ["checks", "x86_64-linux", `cached-${at}`], drv(100 + at, `cached-${at}`), `cached-${at}`));
  add(3, target(200, ["packages", "x86_64-linux", "broken"]));
  add(3, { event: "targetSettled", target: 200, verdict: "notEvaluated", error: "attribute 'libfoo' missing\n\nat /nix/store/x-source/flake.nix:12:7:\n\n   12|   buildInputs = [ pkgs.libfoo ];\n     |                   ^" });
  add(6, { event: "stageStarted", stage: "plan" });
  const inputs = (at) => (at < 6 ? (at === 2 ? [0, 1] : []) : [at % 6, ...(at > 20 ? [at - 15] : [])].sort((a, b) => a - b));
  add(9, { event: "planned", targets: [], fetched: [], savedSeconds: 1840,
    derivations: Array.from({ length: count }, (_, at) => ({ drvPath: path(at), system: "x86_64-linux", inputs: inputs(at), estimate: 10 })) });
  for (let at = 0; at < 40; at++) add(9, { event: "targetSettled", target: 100 + at, verdict: "cached", from: at < 12 ? { where: "store" } : { where: "substituter", url: at < 34 ? "https://cache.nixos.org" : "https://example.cachix.org" } });
  add(9, { event: "stageStarted", stage: "build" });
  const ends = [], free = [9, 12, 14], failing = 3;
  const bad = new Set();
  for (let at = 0; at < count; at++) {
    const settle = (when, verdict) => {
      add(when, { event: "derivationSettled", drvPath: path(at), ...verdict });
      const { seconds, log, ...own } = verdict;
      add(when, { event: "targetSettled", target: at, ...own });
    };
    if (inputs(at).some((input) => bad.has(input))) {
      bad.add(at);
      ends[at] = 40;
      settle(40, { verdict: "blocked", by: [path(failing)] });
      continue;
    }
    const runner = free.indexOf(Math.min(...free));
    const begun = Math.max(free[runner], ...inputs(at).map((input) => ends[input]));
    const seconds = 3 + ((at * 37) % 23);
    ends[at] = free[runner] = begun + seconds;
    add(begun, { event: "buildStarted", drvPath: path(at), machine: `runner ${runner}` });
    if (at === failing) {
      bad.add(at);
      for (let line = 0; line < 12; line++) add(begun, { event: "logLine", drvPath: path(at), line: `[ ${line * 8}%] Building C object src/CMakeFiles/libgit2.dir/file${line}.c.o` });
      add(begun, { event: "logLine", drvPath: path(at), line: "src/streams/openssl.c:104:2: error: implicit declaration of function 'SSL_CTX_foo'" });
      settle(ends[at], { verdict: "failed", class: "build", message: `builder for '${path(at)}' failed with exit code 2`, seconds, log: "/runs/7/logs/libgit2.log" });
    } else settle(ends[at], { verdict: "built", seconds });
  }
  add(Math.max(...ends) + 1, { event: "message", severity: "warning", text: "Git tree '/home/me/infrastructure' is dirty" });
  add(Math.max(...ends) + 1, { event: "runEnded", exitCode: 100, directory: "/runs/7" });
  return events;
}

/** Everything that strangers can write is out to do harm. */
export function hostile() {
  const evil = "</script><script>window.owned = 1</script><!-- \n<img src=x onerror=window.owned=1>'\"\u202egnp.exe javascript:alert(1)";
  const { events, add } = recording();
  begin(add, [evil]);
  add(1, target(0, ["packages", evil, evil], drv(0, "a"), evil));
  add(1, target(1, [evil]));
  add(1, { event: "targetSettled", target: 1, verdict: "notEvaluated", error: `${evil}\n${evil}` });
  add(1, { event: "planned", targets: [], fetched: [], savedSeconds: 0,
    derivations: [{ drvPath: drv(0, "a"), system: evil, inputs: [], estimate: 1 }, { drvPath: drv(1, "b"), system: evil, inputs: [0], estimate: 1 }] });
  add(2, { event: "buildStarted", drvPath: drv(0, "a"), machine: evil });
  add(2, { event: "logLine", drvPath: drv(0, "a"), line: evil });
  add(4, { event: "derivationSettled", drvPath: drv(0, "a"), verdict: "failed", class: "build", message: evil, seconds: 2, log: evil });
  add(4, { event: "targetSettled", target: 0, verdict: "failed", class: "build", message: evil });
  add(4, { event: "derivationSettled", drvPath: drv(1, "b"), verdict: "blocked", by: [drv(0, "a")] });
  add(5, { event: "message", severity: "error", text: evil });
  add(5, { event: "runEnded", exitCode: 100, directory: evil });
  return events;
}

/** 2,000 derivations in chains of eight on eight runners, every one built. */
export function large() {
  const { events, add } = recording();
  begin(add, ["."]);
  const path = (at) => drv(at, `package-${at}-1.0`);
  for (let at = 0; at < 2000; at++) add(1, target(at, ["packages", "x86_64-linux", `package-${at}`], path(at), `package-${at}-1.0`));
  add(2, { event: "planned", targets: [], fetched: [], savedSeconds: 0,
    derivations: Array.from({ length: 2000 }, (_, at) => ({ drvPath: path(at), system: "x86_64-linux", inputs: at % 8 ? [at - 1] : [], estimate: 1 })) });
  for (let at = 0; at < 2000; at++) {
    const begun = 2 + Math.floor(at / 8) * 2;
    add(begun, { event: "buildStarted", drvPath: path(at), machine: `runner ${at % 8}` });
    add(begun + 1.5, { event: "derivationSettled", drvPath: path(at), verdict: "built", seconds: 1.5 });
    add(begun + 1.5, { event: "targetSettled", target: at, verdict: "built" });
  }
  add(600, { event: "runEnded", exitCode: 0 });
  return events;
}
