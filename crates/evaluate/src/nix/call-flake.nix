# From a lock file and the root's source to the outputs of the root flake, as Nix itself does it
# (nix `src/libflake/call-flake.nix`), so that what is evaluated here has the same derivations. Since 2.14 a
# flake in a subdirectory has that directory as its `outPath`; before, it had the root of its source.
# `seen` gets the name and the value of all that is told of the root's source, when it is asked for.
# `sources` has what is in the store already, by node: `path`, `narHash`, and the `info` that the lock file has.
# Since 2.29 what is no flake has a directory of its own, too.
sources: seen: ownDir: plainDir: lock: rootInfo: rootDir:
let
  # Follows a list of input names from a node.
  follow = key: names:
    if names == [ ] then key
    else follow (target lock.nodes.${key}.inputs.${builtins.head names}) (builtins.tail names);
  # An input is the key of a node, or a way from the root ("follows").
  target = input: if builtins.isList input then follow lock.root input else input;

  # A path has its own lastModified; that of the lock file counts.
  taken = { path, narHash, info }:
    builtins.removeAttrs (fetchTree { type = "path"; inherit path narHash; }) [ "lastModified" "lastModifiedDate" ] // info;

  node = key: info:
    let
      isRoot = key == lock.root;
      locked = info.locked or { };
      isRelative = (locked.type or "") == "path" && builtins.substring 0 1 (locked.path or "/") != "/";
      parent = nodes.${follow lock.root (info.parent or [ ])};
      sourceInfo =
        if isRoot then rootInfo
        else if isRelative then parent.sourceInfo // { outPath = parent.outPath + ("/" + locked.path); }
        else if sources ? ${key} then taken sources.${key}
        else fetchTree ((info.info or { }) // builtins.removeAttrs locked [ "dir" "__final" ]);
      dir = if isRoot then rootDir else locked.dir or "";
      outPath = sourceInfo + ((if dir == "" then "" else "/") + dir);
      isOwn = isRoot || isRelative && parent.isOwn;
      told = if isOwn then builtins.mapAttrs seen sourceInfo else sourceInfo;
      toldPath = if isOwn then seen "outPath" outPath else outPath;
      flake = import (outPath + "/flake.nix");
      inputs = builtins.mapAttrs (name: input: nodes.${target input}.value) (info.inputs or { });
      outputs = flake.outputs (inputs // { self = value; });
      value =
        if info.flake or true
        then outputs // told // { inherit inputs outputs; sourceInfo = told; }
          // (if ownDir then { outPath = toldPath; _type = "flake"; } else { })
        else if plainDir then told // { sourceInfo = told; outPath = toldPath; }
        else told;
    in { inherit value sourceInfo outPath isOwn; };

  nodes = builtins.mapAttrs node lock.nodes;
in nodes.${lock.root}.value
