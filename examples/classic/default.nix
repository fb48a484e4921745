# The same without a flake: phoenix run -f examples/classic
{ system ? builtins.currentSystem }:
let
  build = name: attrs: derivation ({
    inherit name system;
    builder = "/bin/sh";
    args = [ "-c" "echo 'building ${name}'; echo ${name} > $out" ];
  } // attrs);
in rec {
  hello = build "hello" { };
  greeting = build "greeting" { inherit hello; };

  # Sets are entered when they say so.
  tools = {
    recurseForDerivations = true;
    hammer = build "hammer" { };
  };
}
