//! What tests need: a throw-away Nix store, a binary cache that misbehaves on demand, fixture flakes.
//!
//! Nothing here touches the user's own store, and servers listen on the loopback only.

