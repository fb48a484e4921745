//! What is defined for an evaluator beside what the user gave.
//!
//! An expression of the user's sees what was defined before it, and a `with` in it does not win against that. So these
//! are names that nobody else uses. Those that are in each question are short, for the repl takes a few microseconds over
//! each character.

/// What begins and ends an answer; see `evaluator.rs`.
pub(crate) const NEXT: &str = "_'N";
pub(crate) const END: &str = "_'E";

/// What asks for an attribute of a set, with a number of that set.
pub(crate) const AT: &str = "_'A";

/// What asks for several of them.
pub(crate) const EACH: &str = "_'L";

/// The names of all attributes of a set, with its number, and what makes some of them of runs of their numbers.
pub(crate) const NAMES: &str = "_'M";
pub(crate) const SOME: &str = "_'S";

/// What is called with the path of a set and tells the names in it; see `Prepared::start`.
pub(crate) const NAMES_OF: &str = "phoenix'namesOf";

/// What is called with the name and the value of something that is told of a source; see `nix/call-flake.nix`.
pub(crate) const SEEN: &str = "phoenix'seen";

/// What is in the store already of the inputs of a flake; see `nix/call-flake.nix`.
pub(crate) const SOURCES: &str = "phoenix'sources";

/// The flake, where what is evaluated is something in it or made of it.
pub(crate) const FLAKE: &str = "phoenix'flake";

/// What is evaluated.
pub(crate) const ROOT: &str = "phoenix'root";

/// What calls functions on the way with what the user gave; see `nix/call.nix`.
pub(crate) const CALL: &str = "phoenix'call";

/// What the user gave: the expression, the function of `--select`, and arguments, with their numbers.
pub(crate) const EXPRESSION: &str = "phoenix'expression";
pub(crate) const SELECT: &str = "phoenix'select";
pub(crate) const ARGUMENT: &str = "phoenix'argument";

/// What `--select` made.
pub(crate) const SELECTED: &str = "phoenix'selected";

/// What answers a question, and what makes it from what finishes an answer.
pub(crate) const INSPECT: &str = "_'I";
pub(crate) const INSPECT_BY: &str = "phoenix'inspectBy";

/// What finishes an answer for nix-eval-jobs, and what it is told where there is no derivation.
pub(crate) const FINISH: &str = "phoenix'finish";
pub(crate) const STAND_IN: &str = "phoenix'standIn";

/// Whether an error says that something of ours is not defined: the repl refused it, and its words are lost.
pub(crate) fn is_unknown(error: &[String]) -> bool {
    let begins = ["undefined variable '_'", "undefined variable 'phoenix'"];
    error.iter().any(|line| begins.iter().any(|begin| line.contains(begin)))
}
