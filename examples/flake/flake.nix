# Everything CI meets in a flake, small: a shared dependency, several outputs, a slow chain, a
# fixed-output derivation, nested jobs, and a failure behind an attribute of its own.
#
# Only `derivation` and /bin/sh with its builtins are used, so that it builds offline and in the sandbox.
{
  description = "An example for phoenix run";

  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      forSystems = make: builtins.listToAttrs (map (system: { name = system; value = make system; }) systems);

      # Counts to the given number: there is no `sleep` among the builtins.
      work = count: "i=0; while [ $i -lt ${toString count} ]; do i=$((i + 1)); done; ";

      build = system: name: attrs: script: derivation ({
        inherit name system;
        builder = "/bin/sh";
        args = [ "-c" script ];
      } // attrs);

      packagesFor = system:
        let
          b = build system;

          # A target of its own, and needed by five others. It is built once.
          base = b "base-1.0" { } "echo 'compiling base'; ${work 1000000} echo base > $out";

          # One derivation, three outputs.
          library = b "library-2.1" { inherit base; outputs = [ "out" "dev" "doc" ]; }
            "echo 'building library'; echo library > $out; echo headers > $dev; echo manual > $doc";

          # Each needs the one before: no number of builders makes this faster.
          link = name: needs: b name { inherit needs; } "echo 'on top of' $needs; ${work 500000} echo ${name} > $out";
          chain-1 = link "chain-1" base;
          chain-2 = link "chain-2" chain-1;
          chain-3 = link "chain-3" chain-2;

          # Its hash is known beforehand, as that of a download.
          download = b "download-3.txt"
            { outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "sha256-9uN5sGOQVMUYBv1dZ5SMvK69NUsOkadoOTKwQ8XDujI="; }
            "printf 'fetched\\n' > $out";

          app = b "app-1.2" { inherit base download; library = library.dev; } "echo app > $out";
        in { inherit base library chain-3 download app; default = app; };

      checksFor = system:
        let packages = packagesFor system; in {
          app-runs = build system "app-runs" { inherit (packages) app; }
            "read word < $app; test \"$word\" = app && echo ok > $out";
          library-has-headers = build system "library-has-headers" { headers = packages.library.dev; }
            "read word < $headers; test \"$word\" = headers && echo ok > $out";
        };
    in {
      packages = forSystems packagesFor;
      checks = forSystems checksFor;

      devShells = forSystems (system: {
        default = build system "dev-shell" { inherit (packagesFor system) library; } "echo shell > $out";
      });

      formatter = forSystems (system: build system "formatter" { } "echo formatter > $out");

      # Jobs may be nested as deep as one likes.
      hydraJobs.release.tarball = forSystems (system:
        build system "tarball" { inherit (packagesFor system) app; } "echo tarball > $out");

      # What phoenix-ci v1 calls work units, beside plain derivations.
      ci = forSystems (system: {
        lint = build system "lint" { } "echo 'nothing to complain of' > $out";
        publish = {
          type = "ci-work-unit";
          # Whether there is something to do is for the unit to say.
          findWork = "return { build: [self.attrPath + '.image'] }";
          image = build system "image" { inherit (packagesFor system) app; } "echo image > $out";
        };
      });

      # Not among the default targets: phoenix run path:examples/flake#broken
      broken = forSystems (system: rec {
        fails = build system "fails" { inherit (packagesFor system) base; }
          "echo 'checking the sums'; echo '2 + 2 = 5: this is wrong' >&2; exit 1";
        needs-fails = build system "needs-fails" { inherit fails; } "echo never > $out";
        throws = throw "this attribute does not evaluate";
      });
    };
}
